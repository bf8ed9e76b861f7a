"""``twinray`` in the shell of a page: hands its words, folder, environment and streams to fork_server.py."""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["TWINRAY_FORK_SERVER"])
    asked = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    sys.exit(int(server.recv(16) or b"1"))
