"""TLS to a broker: what is demanded of it, and what a handshake that failed means."""

import ssl

from edge.config import MqttConfig
from edge.errors import ConfigError

NOT_YET_VALID, EXPIRED, OTHER_HOST, OTHER_ADDRESS = 9, 10, 62, 64  # OpenSSL's X509_V_ERR_...
WAYS_OUT = {
    NOT_YET_VALID: "is this machine's clock right?",
    EXPIRED: "renew it; or is this machine's clock ahead?",
    OTHER_HOST: "see mqtt.broker",
    OTHER_ADDRESS: "see mqtt.broker",
}
# The other end, or a proxy before it, hung up during the handshake: a broker that is being restarted, mostly.
HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """TLS 1.2 or newer with verified certificates. Raises ConfigError for a file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"mqtt.ca_file: {config.ca_file}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Strict since Python 3.13, and then refuses most home-made authorities for a missing extension, though the chain,
    # the dates and the host's name hold. These are verified all the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if config.cert_file is not None:
        try:
            context.load_cert_chain(config.cert_file, config.key_file, password=lambda: "")
        except OSError as error:
            raise ConfigError(f"mqtt.cert_file: {config.cert_file}: {error.strerror or error}") from None
    return context


def may_pass(error: ssl.SSLError) -> bool:
    """Whether the same handshake may hold in a second, though nobody changes a setting."""
    # A board without a clock of its own lives in the past until the network tells it the time.
    return isinstance(error, HUNG_UP) or getattr(error, "verify_code", None) == NOT_YET_VALID


def told(error: ssl.SSLError) -> str:
    """What failed, and the way out."""
    if isinstance(error, HUNG_UP):
        return "cannot be reached: it hangs up during the TLS handshake; is TLS spoken there? see mqtt.port"
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"no TLS there ({error.reason or error}); see mqtt.port"
    advice = WAYS_OUT.get(error.verify_code, "see mqtt.ca_file")
    return f"its TLS certificate does not hold: {error.verify_message.rstrip('.')}; {advice}"
