"""What may stand on the command line."""

import argparse
from pathlib import Path

from edge import __version__


def parser() -> argparse.ArgumentParser:
    """Of the command `emotiond`; `command` says what to do."""
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

    main = argparse.ArgumentParser(prog="emotiond", description="Emotion events of the faces before a camera, by MQTT.")
    main.add_argument("--version", action="version", version=f"emotiond {__version__}")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="the daemon")
    run.add_argument(
        "--source", metavar="S", help="instead of camera.source: builtin, a webcam's number, a file, a URL"
    )
    run.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    run.add_argument("--events", choices=["-"], help="also print events to standard output, as JSON lines")
    run.add_argument("--watch", action="store_true", help="also print what a subscriber of the broker receives")

    check = commands.add_parser("check", parents=[common], help="prove config, model, camera and broker, one by one")
    check.add_argument("--source", metavar="S", help="instead of camera.source")

    watch = commands.add_parser("watch", parents=[common], help="print the events of all devices of a broker")
    watch.add_argument("--all", action="store_true", help="live faces and stats too")
    watch.add_argument("--raw", action="store_true", help="topics and payloads as they come")

    commands.add_parser("forget", parents=[common], help="take what the broker keeps of this device away")

    model = commands.add_parser("model", help="signed bundles of a network: verify, install, rollback")
    acts = model.add_subparsers(dest="model_command", required=True, metavar="ACT")
    for name, what in [
        ("verify", "prove a bundle's signature, and its network on this device"),
        ("install", "verify it, and take it at the daemon's next start"),
        ("rollback", "change it for the one before"),
    ]:
        act = acts.add_parser(name, parents=[common], help=what)
        if name != "rollback":
            act.add_argument("bundle", type=Path, metavar="BUNDLE", help="its signature lies beside it: BUNDLE.minisig")
            act.add_argument("--unsigned", action="store_true", help="ask for no signature")
        if name == "install":
            act.add_argument("--downgrade", action="store_true", help="also one that is not newer")

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

    video = commands.add_parser("video", parents=[common, people], help="read the faces of a video")
    video.add_argument("source", metavar="IN", help="a video file, a folder of pictures, or builtin")
    video.add_argument("--output-video", type=Path, metavar="P", help="a copy with faces and scores drawn in")
    video.add_argument(
        "--output-csv", type=Path, metavar="P", help="a row per face and frame; events: P with -events in its name"
    )
    video.add_argument("--output-timeline", type=Path, metavar="P", help="a picture of every face's emotions over time")
    video.add_argument("--no-bars", action="store_true", help="no bar charts in the copy")

    preview = commands.add_parser("preview", parents=[common, people], help="a window with the faces as they are read")
    preview.add_argument(
        "--source",
        metavar="S",
        help="a webcam's number, a file, a URL, builtin; without it, cameras are shown to pick from",
    )
    preview.add_argument("--stills", type=Path, default=Path(), metavar="DIR", help="where key s saves; default: here")

    web = commands.add_parser("web", parents=[common], help="a dashboard in the browser")
    web.add_argument("--host", default="127.0.0.1", metavar="H", help="where to listen; default: this machine alone")
    web.add_argument("--port", type=_positive, default=8080, metavar="N", help="default: 8080")
    web.add_argument("--password-file", type=Path, metavar="F", help="a file with the password that visitors must give")
    web.add_argument(
        "--trusted-header", metavar="NAME", help="let in what has this header, which a reverse proxy sets, and strips"
    )
    return main


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return number
