"""The command `emotiond`: arguments, exit codes, nothing else. What is heavy is imported when it is needed."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from edge.arguments import parser
from edge.errors import ConfigError, EmotiondError

BUG, IO_ERROR = 70, 74  # sysexits.h: EX_SOFTWARE, EX_IOERR
PICTURE_PIXELS_MAX = 50_000_000  # three bytes each; JPEGs of four times as many are decoded at half their size


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Parse the command line, do as it says, exit."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who started us
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(parser().parse_args(arguments))
        sys.stdout.flush()
    except EmotiondError as error:
        code = _explain(str(error), error.exit_code, debug)
    except SystemExit as end:  # argparse's: help, version, usage
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has seen enough
        code = 0
    except OSError as error:
        code = _explain(f"{error.filename or 'standard output'}: {error.strerror or error}", IO_ERROR, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence; --debug shows where
        what = f"{type(error).__name__}: {error}"
        code = _explain(f"a bug in emotiond: {what}; run with --debug for the traceback", BUG, debug)
    try:
        sys.stdout.flush()
    except OSError:  # what is left cannot be written; the interpreter would try again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _explain(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(line)
    return code


def _say(line: str) -> None:
    print(f"emotiond: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201 - the one place


def _run(options: argparse.Namespace) -> int:
    try:
        return ACTS[options.command](options)
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise ConfigError(
            "OpenCV is not installed: pip install opencv-python-headless (with a window: opencv-python)"
        ) from None
    except ImportError as error:
        if "lib" not in str(error) or ".so" not in str(error):
            raise
        raise ConfigError(f"{error}; without a desktop take opencv-python-headless instead of opencv-python") from None


def _daemon(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides, options.source)
    _set_up_logging("debug" if options.debug else settings.log.level)
    from edge import app

    wishes = app.Wishes()

    def stop(number: int, frame: FrameType | None) -> None:
        wishes.stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    app.run(settings, wishes, options.max_frames, print_events=options.events == "-", watch=options.watch)
    return 0


def _check(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides, options.source)
    _set_up_logging("error")
    from edge.check import check

    return check(settings, sys.stdout)


def _watch(options: argparse.Namespace) -> int:
    from edge import configfile
    from edge.connection import Dialer, passing_client_id
    from edge.sinks import LineWriter
    from edge.watch import Subscriber

    settings = configfile.load(options.config, options.overrides).mqtt
    _set_up_logging("info")
    # A wrong name should be told at once; later losses are waited out.
    Dialer(settings, passing_client_id("watch")).dial(lambda *_: None, lambda: None).close()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        LineWriter(sys.stdout.fileno()) as writer,
        Subscriber(settings, writer.write, everything=options.all, raw=options.raw),
    ):
        writer.closed.wait()
    return 0


def _forget(options: argparse.Namespace) -> int:
    from edge import configfile

    settings = configfile.load(options.config, options.overrides)
    _set_up_logging("info")
    from edge.forget import forget

    for topic in forget(settings):
        sys.stdout.write(f"{topic}\n")
    return 0


def _model(options: argparse.Namespace) -> int:
    from edge import configfile

    config = configfile.load(options.config, options.overrides).model
    _set_up_logging("debug" if options.debug else "warning")
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
    sys.stdout.write(f"{done}; the daemon takes it at its next start\n")
    return 0


def _image(options: argparse.Namespace) -> int:
    _set_up_opencv()
    from edge import configfile

    config = configfile.load(options.config, options.overrides, detector=options.detector)
    _set_up_logging("debug" if options.debug else "warning")
    from edge import stills

    return stills.run(config, options.inputs, options.output_image, options.output_csv, options.json)


def _video(options: argparse.Namespace) -> int:
    _set_up_opencv()
    from edge import configfile

    config = configfile.load(options.config, options.overrides, options.source, options.detector)
    _set_up_logging("debug" if options.debug else "warning")
    from edge import video

    outputs = video.Outputs(options.output_video, options.output_csv, options.output_timeline)
    video.run(config, outputs, bars=not options.no_bars)
    return 0


def _preview(options: argparse.Namespace) -> int:
    _set_up_opencv()
    from edge import configfile

    config = configfile.load(options.config, options.overrides, options.source, options.detector)
    _set_up_logging("debug" if options.debug else config.log.level)
    from edge import preview

    # A camera in the settings is as good as one on the command line.
    given = options.source is not None or config.camera.source != "builtin"
    preview.run(config, given, options.stills)
    return 0


def _web(options: argparse.Namespace) -> int:
    _set_up_opencv()
    from edge import configfile

    config = configfile.load(options.config, options.overrides)
    _set_up_logging("debug" if options.debug else config.log.level)
    try:
        from edge.web import server
    except ModuleNotFoundError as error:
        if error.name == "cv2":
            raise
        raise ConfigError(f"{error.name} is not installed: pip install 'emotiond[web]'") from None

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.run(config, server.Listening(options.host, options.port, options.password_file, options.trusted_header))
    return 0


def _set_up_opencv() -> None:
    """What OpenCV and FFmpeg read when they are loaded."""
    # Held to before memory is taken for a picture.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PICTURE_PIXELS_MAX))
    # What they say about damaged files and missing codecs we say better.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _set_up_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format="emotiond: %(message)s")


ACTS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _daemon,
    "check": _check,
    "watch": _watch,
    "forget": _forget,
    "model": _model,
    "image": _image,
    "video": _video,
    "preview": _preview,
    "web": _web,
}
