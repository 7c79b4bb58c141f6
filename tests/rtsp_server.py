"""A camera that speaks RTSP (H.264) on loopback: /usr/bin/python3 rtsp_server.py FRAMES_PATTERN COUNT PORT KEY_EVERY

For Debian's own Python: needs python3-gi, gir1.2-gst-rtsp-server-1.0 and GStreamer's plugins (base to ugly).
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - gi wants the versions first

pattern, count, port, key_every = sys.argv[1:5]
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_shared(True)
factory.set_launch(
    f'( multifilesrc location="{pattern}" start-index=0 stop-index={int(count) - 1} loop=true'
    ' caps="image/jpeg,framerate=15/1" ! jpegdec ! videoconvert ! video/x-raw,format=I420'
    f" ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={key_every} ! rtph264pay name=pay0 pt=96 )"
)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print("serving", flush=True)  # the test waits for this line
GLib.MainLoop().run()
