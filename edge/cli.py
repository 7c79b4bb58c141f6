"""The command `emotiond`: arguments, exit codes, nothing else. What is heavy is imported when it is needed."""

import argparse
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from edge import __version__, fleet_commands, people_commands
from edge.console import CAPTURE, add_command, interrupt, interrupts, positive, send_nowhere, set_up_logging, shown
from edge.errors import ConfigError, EmotiondError, ServiceUnavailableError, pip

log = logging.getLogger(__name__)

SET = "one setting, as config.yaml has it, in place of the file's: --set camera.fps=15; may be given again"
SOURCE = "one camera, with this source: builtin, a webcam's number, picamera2, a file, a folder of pictures, a URL"
BUG, IO_ERROR = 70, 74  # sysexits.h: EX_SOFTWARE, EX_IOERR
INTERRUPTED = 128 + signal.SIGINT  # as shells say it


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line, do as it says, exit."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal in Latin-1 still gets every name
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as a shell's & does
        signal.signal(signal.SIGINT, interrupt)
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(_parser().parse_args(arguments))
        sys.stdout.flush()
    except EmotiondError as error:
        code = INTERRUPTED if interrupts else _explain(str(error), error.exit_code, debug)
    except SystemExit as end:  # argparse's: help, version, usage
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        code = 0
    except OSError as error:
        code = _explain(f"{error.filename or 'standard output'}: {error.strerror or error}", IO_ERROR, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence; --debug shows where
        what = f"a bug in emotiond: {type(error).__name__}: {error}; run with --debug for the traceback"
        code = INTERRUPTED if interrupts else _explain(what, BUG, debug)
    try:
        sys.stdout.flush()
    except OSError:  # what is left cannot be written; the interpreter would try again, and complain
        send_nowhere(1)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit. A camera's thread that comes back from OpenCV while Python takes itself down aborts the process."""
    if any(thread.name == CAPTURE for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _explain(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(line)
    return code


def _say(line: str) -> None:
    print(f"emotiond: {shown(' '.join(line.split()))}", file=sys.stderr)  # noqa: T201 - the one place


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="F", help="the settings; default: ./config.yaml, else /etc/emotiond/config.yaml"
    )
    common.add_argument("--set", action="append", default=[], metavar="A.B=V", dest="overrides", help=SET)
    common.add_argument("--debug", action="store_true", help="tracebacks, and log.level: debug")

    parser = argparse.ArgumentParser(
        prog="emotiond",
        description="Emotion events of the faces before a camera, by MQTT.",
        epilog="emotiond COMMAND --help tells a command's options; config.yaml has all settings, and explains them.",
    )
    parser.add_argument("--version", action="version", version=f"emotiond {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    more = "Without settings it reads its built-in clip, and publishes to a broker of its own on this machine."
    run = add_command(commands, "run", "the daemon: read the cameras, publish events", more, parents=[common])
    run.add_argument("--source", metavar="S", help=SOURCE)
    run.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    run.add_argument("--events", choices=["-"], help="also print events to standard output, as JSON lines")
    run.add_argument("--watch", action="store_true", help="also print what a subscriber of the broker receives")
    run.set_defaults(act=_daemon)

    what, more = "prove settings, model, cameras and broker, one by one", "The exit code is 0 only if all hold."
    check = add_command(commands, "check", what, more, parents=[common])
    check.add_argument("--source", metavar="S", help=SOURCE)
    check.set_defaults(act=_check)

    more = "A line for each change of a face, of what a camera sees now, and of a device's and a camera's status."
    watch = add_command(commands, "watch", "print the events of all devices of a broker", more, parents=[common])
    watch.add_argument("--all", action="store_true", help="live faces and stats too")
    watch.add_argument("--raw", action="store_true", help="topics and payloads as they come")
    watch.set_defaults(act=_watch)

    fleet_commands.add_to(commands, common)

    people_commands.add_to(commands, common)
    return parser


def _run(options: argparse.Namespace) -> int:
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise ConfigError(
            f"OpenCV is not installed: {pip('install', 'opencv-python-headless')} (with a window: opencv-python)"
        ) from None
    except ImportError as error:
        if "lib" not in str(error) or ".so" not in str(error):
            raise
        raise ConfigError(f"{error}; without a desktop take opencv-python-headless instead of opencv-python") from None


def _daemon(options: argparse.Namespace) -> int:
    from edge import configfile

    overrides = [*options.overrides, *(["log.level=debug"] if options.debug else [])]
    read = partial(configfile.load, options.config, overrides, options.source)
    settings = read()
    set_up_logging(settings.log.level)
    from edge import daemon
    from edge.loop import Wishes

    wishes = Wishes()

    def wish(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            wishes.reload = True
        else:
            wishes.stop = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, wish)
    daemon.run(settings, wishes, options.max_frames, options.events == "-", options.watch, reread=read)
    return 0


def _check(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides, options.source)
    set_up_logging("error")
    from edge.check import check

    return check(settings, sys.stdout)


def _watch(options: argparse.Namespace) -> int:
    from edge import configfile
    from edge.connection import Dialer, passing_client_id
    from edge.sinks import LineWriter
    from edge.watch import Subscriber

    settings = configfile.load(options.config, options.overrides).mqtt
    set_up_logging("info")
    if settings.broker is None:
        raise ConfigError("mqtt.broker: null: there is no broker to watch")
    # A wrong name should be told at once; later losses are waited out.
    dialer = Dialer(settings, passing_client_id("watch"))
    try:
        dialer.dial().close()
    except ServiceUnavailableError as error:
        if not settings.embedded:
            raise
        raise ServiceUnavailableError(f"{error}; start emotiond run first, or name a broker (mqtt.broker)") from None
    log.info("watching %s:%d, %s/...; Ctrl-C ends it", dialer.host, dialer.port, settings.base_topic)
    signal.signal(signal.SIGTERM, interrupt)
    with (
        LineWriter(sys.stdout.fileno()) as writer,
        Subscriber(settings, writer.write, everything=options.all, raw=options.raw),
    ):
        writer.closed.wait()
    return 0
