"""The commands of who runs several devices: `forget`, `model`, `fleet-sim`. What is heavy is imported when needed."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from edge.console import add_command, between, positive, set_up_logging
from edge.errors import ConfigError, ServiceUnavailableError, UsageError

DEVICES_MAX = 2000  # of which one machine's processor can be several
READERS_MAX = 100  # threads of the process that counts
DAY_S = 86_400.0
BAR = 50  # characters, of the second in which most came back


def add_to(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add them to the command line. commands: argparse's subparsers; common: options that each has."""
    what = "take what the broker keeps of this device away"
    more = "Stop the device first. Home Assistant forgets it too. The topics that were emptied are printed."
    forget = add_command(commands, "forget", what, more, parents=[common])
    forget.set_defaults(act=_forget)

    what, more = "many simulated devices against the broker", "Prints what was published, and what of it arrived."
    fleet = add_command(commands, "fleet-sim", what, more, parents=[common])
    default = "default: %(default)s"
    fleet.add_argument("--devices", type=positive, default=10, metavar="N", help=f"how many; {default}")
    rate, seconds, patience = between(0.001, 1000), between(0.1, DAY_S), between(0, DAY_S)
    fleet.add_argument("--rate", type=rate, default=1.0, metavar="R", help=f"events/s of each; {default}")
    fleet.add_argument("--seconds", type=seconds, default=30.0, metavar="S", help=f"of events; {default}")
    fleet.add_argument("--patience", type=patience, default=60.0, metavar="S", help=f"for the last of them; {default}")
    fleet.add_argument("--readers", type=positive, default=1, metavar="N", help=f"that share them (MQTT 5); {default}")
    fleet.set_defaults(act=_fleet)

    what, more = "signed bundles of a network: verify, install, rollback", "See model.folder and model.public_key."
    model = add_command(commands, "model", what, more)
    acts = model.add_subparsers(dest="model_command", required=True, metavar="ACT")
    for name, what in [
        ("verify", "prove a bundle's signature, and its network on this device"),
        ("install", "verify it, and take it when the daemon starts or reloads"),
        ("rollback", "change it for the one before"),
    ]:
        act = add_command(acts, name, what, "See model.folder and model.public_key.", parents=[common])
        if name != "rollback":
            act.add_argument("bundle", type=Path, metavar="BUNDLE", help="its signature lies beside it: BUNDLE.minisig")
            act.add_argument("--unsigned", action="store_true", help="ask for no signature")
        if name == "install":
            act.add_argument("--downgrade", action="store_true", help="also one that is not newer")
    model.set_defaults(act=_model)


def _forget(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides)
    set_up_logging("info")
    from edge.forget import forget

    for topic in forget(settings):
        sys.stdout.write(f"{topic}\n")
    return 0


def _fleet(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides).mqtt
    if settings.embedded or settings.broker is None:
        raise ConfigError("mqtt.broker: fleet-sim needs a broker that runs: --set mqtt.broker=localhost, say")
    if options.readers > READERS_MAX:
        raise UsageError(f"--readers: at most {READERS_MAX}")
    if options.devices > DEVICES_MAX:
        raise UsageError(f"--devices: at most {DEVICES_MAX}; start several fleet-sim, on machines of their own")
    set_up_logging("error", options.debug)
    logging.getLogger("edge.fleet").setLevel(logging.INFO)  # when all are connected: now brokers may be killed
    from edge.fleet import simulate

    report = simulate(settings, options.devices, options.rate, options.seconds, options.patience, options.readers)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if report["outages"]:
        sys.stderr.write(_histogram(report["outages"]["back_in_second"]))
    return 0 if not report["lost"] else ServiceUnavailableError.exit_code


def _histogram(back_in_second: dict[str, int]) -> str:
    """A line for each second after the first loss, until the last device was connected again."""
    widest = max(back_in_second.values())
    lines = ["devices that were connected again, by seconds after the first loss:"]
    for second in range(max(map(int, back_in_second)) + 1):
        count = back_in_second.get(str(second), 0)
        lines.append(f"{second:4} {count:5} {'#' * round(BAR * count / widest)}")
    return "\n".join(lines) + "\n"


def _model(options: argparse.Namespace) -> int:
    from edge import configfile

    config = configfile.load(options.config, options.overrides).model
    set_up_logging("warning", options.debug)
    from edge import bundle

    if options.model_command == "verify":
        found, signer = bundle.verify(options.bundle, config, options.unsigned)
        sys.stdout.write(f"{found}: sound on this device; {signer}\n")
        return 0
    store = bundle.Store(config)
    if options.model_command == "install":
        found, _ = bundle.verify(options.bundle, config, options.unsigned)
        store.install(found, options.downgrade)
        done = f"{found} is installed"
    else:
        done = f"back to {store.rollback() or bundle.SHIPPED}"
    sys.stdout.write(f"{done}; the daemon takes it when it starts, or reloads\n")
    return 0
