from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stereopsis.data.download import SCENES, fetch_scene


def archive(names: tuple[str, ...]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as opened:
        for name in names:
            opened.writestr(name, name * 100)
    return held.getvalue()


class Server:
    """Serves one file, with byte ranges; `requests` are the ranges asked for."""

    def __init__(self, content: bytes) -> None:
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                served.requests.append(asked)
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                if first >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                self.wfile.write(content[first:])

            def log_message(self, *_: object) -> None:
                pass

        self.requests: list[str | None] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/UnrealStereo4K_{{scene:05d}}.zip"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve() -> Iterator:
    servers: list[Server] = []

    def start(content: bytes) -> Server:
        servers.append(Server(content))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


NAMES = ("00003/Image0/00000.png", "00003/Disp0/00000.npy")


def test_a_scene_is_fetched_and_unpacked(tmp_path: Path, serve):
    server, seen = serve(archive(NAMES)), []
    files = fetch_scene(tmp_path, 3, address=server.address, progress=lambda *step: seen.append(step))
    assert [file.relative_to(tmp_path).as_posix() for file in files] == list(NAMES)
    assert (tmp_path / NAMES[0]).read_text() == NAMES[0] * 100
    assert seen[-1][0] == seen[-1][1]
    assert [path.name for path in tmp_path.iterdir()] == ["00003"]


@pytest.mark.parametrize("missing", [0, 50])
def test_an_interrupted_download_is_continued(tmp_path: Path, serve, missing):
    content = archive(NAMES)
    server = serve(content)
    here = len(content) - missing
    (tmp_path / ".UnrealStereo4K_00003.zip.part").write_bytes(content[:here])
    assert len(fetch_scene(tmp_path, 3, address=server.address)) == 2
    assert server.requests == [f"bytes={here}-"]


def test_damaged_and_hostile_archives_are_refused(tmp_path: Path, serve):
    with pytest.raises(ValueError, match="came damaged"):
        fetch_scene(tmp_path, 3, address=serve(b"no zip").address)
    with pytest.raises(ValueError, match="leads outside"):
        fetch_scene(tmp_path / "in", 3, address=serve(archive(("../out.txt",))).address)
    assert not (tmp_path / "out.txt").exists()


def test_scenes_that_do_not_exist_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="the scenes 0 to 8, not 9"):
        fetch_scene(tmp_path, max(SCENES) + 1)


def test_without_a_network_the_error_says_so(tmp_path: Path):
    with pytest.raises(OSError, match="cannot be reached"):
        fetch_scene(tmp_path, 0, address="http://127.0.0.1:9/{scene}.zip")
