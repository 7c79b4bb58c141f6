"""The command `emotiond`: arguments, exit codes, nothing else. What is heavy is imported when it is needed."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from edge import __version__
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
        code = _run(_parser().parse_args(arguments))
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


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="F", help="default: ./config.yaml, else /etc/emotiond/config.yaml"
    )
    common.add_argument("--set", action="append", default=[], metavar="A.B=V", dest="overrides", help="one setting")
    common.add_argument("--debug", action="store_true", help="tracebacks, and log.level: debug")

    people = argparse.ArgumentParser(add_help=False)
    people.add_argument(
        "--detector",
        choices=["haar", "mtcnn"],
        help="instead of detector.kind; mtcnn finds more, is slower, needs TensorFlow",
    )

    parser = argparse.ArgumentParser(
        prog="emotiond", description="Emotion events of the faces before a camera, by MQTT."
    )
    parser.add_argument("--version", action="version", version=f"emotiond {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="the daemon")
    run.add_argument(
        "--source", metavar="S", help="instead of camera.source: builtin, a webcam's number, a file, a URL"
    )
    run.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    run.add_argument("--events", choices=["-"], help="also print events to standard output, as JSON lines")
    run.add_argument("--watch", action="store_true", help="also print what a subscriber of the broker receives")
    run.set_defaults(act=_daemon)

    check = commands.add_parser("check", parents=[common], help="prove config, model, camera and broker, one by one")
    check.add_argument("--source", metavar="S", help="instead of camera.source")
    check.set_defaults(act=_check)

    watch = commands.add_parser("watch", parents=[common], help="print the events of all devices of a broker")
    watch.add_argument("--all", action="store_true", help="live faces and stats too")
    watch.add_argument("--raw", action="store_true", help="topics and payloads as they come")
    watch.set_defaults(act=_watch)

    forget = commands.add_parser("forget", parents=[common], help="take what the broker keeps of this device away")
    forget.set_defaults(act=_forget)

    image = commands.add_parser("image", parents=[common, people], help="read the faces of pictures")
    image.add_argument(
        "inputs", nargs="+", metavar="IN", help="a picture, a folder of them, or a pattern like 'a/*.jpg'"
    )
    image.add_argument(
        "--output-image", metavar="P", help="the picture with faces and scores drawn in; a folder if there are several"
    )
    image.add_argument(
        "--output-csv", type=Path, metavar="P", help="a row per face; how often each emotion was: P with -frequencies"
    )
    image.add_argument("--json", action="store_true", help="a JSON object per picture instead of a line for people")
    image.set_defaults(act=_image)

    video = commands.add_parser("video", parents=[common, people], help="read the faces of a video")
    video.add_argument("source", metavar="IN", help="a video file, a folder of pictures, or builtin")
    video.add_argument("--output-video", type=Path, metavar="P", help="a copy with faces and scores drawn in")
    video.add_argument(
        "--output-csv", type=Path, metavar="P", help="a row per face and frame; events: P with -events in its name"
    )
    video.add_argument("--output-timeline", type=Path, metavar="P", help="a picture of every face's emotions over time")
    video.add_argument("--no-bars", action="store_true", help="no bar charts in the copy")
    video.set_defaults(act=_video)

    preview = commands.add_parser("preview", parents=[common, people], help="a window with the faces as they are read")
    preview.add_argument(
        "--source",
        metavar="S",
        help="a webcam's number, a file, a URL, builtin; without it, cameras are shown to pick from",
    )
    preview.add_argument("--stills", type=Path, default=Path(), metavar="DIR", help="where key s saves; default: here")
    preview.set_defaults(act=_preview)

    web = commands.add_parser("web", parents=[common], help="a dashboard in the browser")
    web.add_argument("--host", default="127.0.0.1", metavar="H", help="where to listen; default: this machine alone")
    web.add_argument("--port", type=_positive, default=8080, metavar="N", help="default: 8080")
    web.add_argument("--password-file", type=Path, metavar="F", help="a file with the password that visitors must give")
    web.add_argument(
        "--trusted-header", metavar="NAME", help="let in what has this header, which a reverse proxy sets, and strips"
    )
    web.set_defaults(act=_web)
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return number


def _run(options: argparse.Namespace) -> int:
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
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
