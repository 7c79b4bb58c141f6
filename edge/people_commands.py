"""The commands for people who look: `image`, `video`, `preview`, `web`. What is heavy is imported when needed."""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from edge.console import add_command, interrupt, positive, set_up_logging, unicode_of
from edge.errors import ConfigError, UsageError, naming, pip

PICTURE_PIXELS_MAX = 50_000_000  # three bytes each; JPEGs of four times as many are decoded at half their size


def add_to(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add them to the command line. commands: argparse's subparsers; common: options that each has."""
    people = argparse.ArgumentParser(add_help=False)
    people.add_argument(
        "--detector",
        choices=["haar", "mtcnn"],
        help="instead of detector.kind; mtcnn finds more, is slower, needs TensorFlow",
    )

    _add_image(commands, [common, people])
    _add_video(commands, [common, people])
    _add_preview(commands, [common, people])
    _add_web(commands, [common])


def _add_image(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    more = "Prints a line for each picture; files are written where they are asked for."
    image = add_command(commands, "image", "read the faces of pictures", more, parents=parents)
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


def _add_video(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    more = "Prints what was found in all; files are written where they are asked for."
    video = add_command(commands, "video", "read the faces of a video", more, parents=parents)
    video.add_argument("source", metavar="IN", help="a video file, a folder of pictures, or builtin")
    video.add_argument("--output-video", type=Path, metavar="P", help="a copy with faces and scores drawn in")
    video.add_argument(
        "--output-csv", type=Path, metavar="P", help="a row per face and frame; events: P with -events in its name"
    )
    video.add_argument("--output-timeline", type=Path, metavar="P", help="a picture of every face's emotions over time")
    video.add_argument("--no-bars", action="store_true", help="no bar charts in the copy")
    video.set_defaults(act=_video)


def _add_preview(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    what, more = "a window with the faces as they are read", "Its key h shows all keys."
    preview = add_command(commands, "preview", what, more, parents=parents)
    preview.add_argument(
        "--source",
        metavar="S",
        help="a webcam's number, a file, a URL, builtin; without it, cameras are shown to pick from",
    )
    preview.add_argument("--stills", type=Path, default=Path(), metavar="DIR", help="where key s saves; default: here")
    preview.set_defaults(act=_preview)


def _add_web(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    more = "Of all devices of the broker in mqtt.broker; and a page that reads the visitor's own camera."
    web = add_command(commands, "web", "a dashboard in the browser", more, parents=parents)
    web.add_argument("--host", default="127.0.0.1", metavar="H", help="where to listen; default: this machine alone")
    web.add_argument("--port", type=positive, default=8080, metavar="N", help="default: 8080")
    web.add_argument("--password-file", type=Path, metavar="F", help="a file with the password that visitors must give")
    web.add_argument(
        "--trusted-header", metavar="NAME", help="let in what has this header, which a reverse proxy sets, and strips"
    )
    web.add_argument("--history", type=Path, metavar="F", help="a file that keeps it over a restart; default: memory")
    web.set_defaults(act=_web)


def _image(options: argparse.Namespace) -> int:
    _set_up()
    from edge import configfile

    settings = configfile.found(options.config)
    config = configfile.load(settings, options.overrides, detector=options.detector)
    set_up_logging("warning", options.debug)
    from edge import stills

    outputs = (options.output_image, options.output_csv, options.json)
    return stills.run(config, options.inputs, *outputs, settings=settings)


def _video(options: argparse.Namespace) -> int:
    _set_up()
    if not options.source:
        raise UsageError("IN: is empty; name a video file or a folder of pictures")
    if options.source != (name := unicode_of(options.source)):  # settings are Unicode, and this becomes one
        raise UsageError(f"{name}: is no Unicode, as the name of what is read must be; rename it")
    from edge import configfile

    settings = configfile.found(options.config)
    with naming("IN: ", instead_of="--source: camera.source: "):
        config = configfile.load(settings, options.overrides, options.source, options.detector)
    set_up_logging("warning", options.debug)
    from edge import video

    outputs = video.Outputs(options.output_video, options.output_csv, options.output_timeline)
    with naming("", instead_of="camera.source: "):  # the name that was typed stands behind it
        video.run(config, outputs, bars=not options.no_bars, settings=settings)
    return 0


def _preview(options: argparse.Namespace) -> int:
    _set_up()
    from edge import configfile

    config = configfile.load(options.config, options.overrides, options.source, options.detector).per_camera[0]
    set_up_logging(config.log.level, options.debug)
    from edge import preview

    # A camera in the settings is as good as one on the command line.
    given = options.source is not None or config.camera.source != "builtin"
    preview.run(config, given, options.stills)
    return 0


def _web(options: argparse.Namespace) -> int:
    _set_up()
    from edge import configfile

    config = configfile.load(options.config, options.overrides)
    set_up_logging(config.log.level, options.debug)
    try:
        from edge.web import server
    except ModuleNotFoundError as error:
        if error.name == "cv2":
            raise
        raise ConfigError(f"{error.name} is not installed: {pip('install', 'emotiond[web]')}") from None

    given = (options.host, options.port, options.password_file, options.trusted_header, options.history)
    server.run(config, server.Listening(*given))
    return 0


def _set_up() -> None:
    """End on SIGTERM as on Ctrl-C, with whole files; and what OpenCV reads when it is loaded."""
    signal.signal(signal.SIGTERM, interrupt)
    # Held to before memory is taken for a picture.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(PICTURE_PIXELS_MAX))
