"""A small hub on this machine: the requests that huggingface_hub makes to upload a folder and to fetch it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """Files by repository; ``refuse`` answers everything with 403."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.made: list[dict] = []
        self.refuse = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def answer(self, content: object, status: int = 200, **headers: str) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def do_POST(self) -> None:
                data = self.body()
                if hub.refuse:
                    self.answer({"error": "no"}, 403)
                elif self.path == "/api/repos/create":
                    told = json.loads(data)
                    hub.made.append(told)
                    name = f"{told.get('organization') or 'someone'}/{told['name']}"
                    hub.files.setdefault(name, {})
                    self.answer(
                        {"url": f"http://{self.headers['Host']}/{name}", "id": name, "name": name}
                    )
                elif self.path.endswith("/preupload/main"):
                    files = json.loads(data)["files"]
                    large = (".safetensors", ".pth")
                    self.answer({"files": [
                        {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(large) else "regular",
                         "shouldIgnore": False} for f in files]})  # fmt: skip
                elif self.path.endswith("/info/lfs/objects/batch"):
                    objects = [
                        {**o, "actions": {"upload": {"href": f"http://{self.headers['Host']}/put/{o['oid']}"}}}
                        for o in json.loads(data)["objects"]
                    ]  # fmt: skip
                    self.answer({"transfer": "basic", "objects": objects})
                elif found := re.match(r"/api/models/(.+)/commit/main", self.path):
                    own = hub.files.setdefault(found[1], {})
                    for line in map(json.loads, data.splitlines()):
                        value = line["value"]
                        if line["key"] == "file":
                            own[value["path"]] = base64.b64decode(value["content"])
                        elif line["key"] == "lfsFile":
                            own[value["path"]] = hub.stored[value["oid"]]
                    url = f"http://{self.headers['Host']}/{found[1]}/commit/{'0' * 40}"
                    self.answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})
                else:  # validation of the card, verification of large files
                    self.answer({"errors": [], "warnings": []})

            def do_PUT(self) -> None:
                data = self.body()
                assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
                hub.stored[self.path.rpartition("/")[2]] = data
                self.answer({})

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                if found := re.match(r"/api/models/(.+)/tree/", self.path):
                    self.answer([
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in hub.files[found[1]].items()
                    ])  # fmt: skip
                elif found := re.match(r"/api/models/(.+?)(/revision/\w+)?(\?|$)", self.path):
                    own = hub.files.get(found[1])
                    if own is None:
                        self.answer({"error": "none"}, 404)
                    else:
                        names = [{"rfilename": name} for name in own]
                        self.answer({"id": found[1], "sha": "0" * 40, "siblings": names})
                elif found := re.match(r"/(.+)/resolve/\w+/(.+)$", self.path):
                    data = hub.files[found[1]][found[2]]
                    tag = hashlib.sha256(data).hexdigest()
                    self.answer(data, ETag=f'"{tag}"', X_Repo_Commit="0" * 40)
                else:
                    self.answer({}, 404)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
