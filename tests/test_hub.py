"""Asking the Hub: decided within the deadline, once, whatever the network does."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session
from tiny import save_tiny_gpt2

from pruning_kit.errors import ModelError
from pruning_kit.inputs import hub
from pruning_kit.inputs.models import find_model, load_model

TOKEN = "hf_of_the_user"
COMMIT = "1" * 40


def digest(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    hub.silence.cache_clear()
    hub.refusal.cache_clear()
    yield
    close_session()
    hub.silence.cache_clear()
    hub.refusal.cache_clear()


class Asked(BaseHTTPRequestHandler):
    """Answers each path with the status of `server.statuses`, and keeps what it was asked."""

    def do_HEAD(self):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        first = self.path.removeprefix("/api/models").strip("/").split("/")[0]
        self.send_response(self.server.statuses.get(first, 200))
        if self.server.moved_to:
            self.send_header("Location", self.server.moved_to + self.path)
        self.end_headers()

    def log_message(self, *_):
        pass


class Repository(BaseHTTPRequestHandler):
    """A Hub with one repository, which holds `server.files`, and that notes what it sends."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        path = unquote(urlsplit(self.path).path)
        files = self.server.files
        if "/tree/" in path:
            content = [
                {"type": "file", "path": name, "size": len(files[name]), "oid": digest(files[name])}
                for name in files
            ]
            self.say(json.dumps(content).encode(), send)
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in files]
            content = {"id": "some/model", "sha": COMMIT, "siblings": siblings}
            self.say(json.dumps(content).encode(), send)
        elif (name := path.split("/", 5)[5]) in files:
            if send:
                self.server.asked.append(name)
            self.say(files[name], send)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def say(self, content, send):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{digest(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Start servers on this machine; each is a host of its own by its port."""
    servers = []

    def start(statuses=None, moved_to=None, files=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Repository if files else Asked)
        server.asked, server.statuses, server.moved_to = [], statuses or {}, moved_to
        server.files = files
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_hub_that_hangs_costs_the_deadline_once(monkeypatch):
    release, asked = threading.Event(), []

    class Session:
        def head(self, url, **_):
            asked.append(url)
            release.wait(10)
            raise OSError

    monkeypatch.setattr(hub, "DEADLINE_S", 0.2)
    monkeypatch.setattr(hub, "get_session", Session)
    start = time.monotonic()
    assert hub.refusal("gpt2") == "the Hugging Face Hub did not answer within 0 seconds"
    assert hub.refusal("other") == hub.silence()
    assert time.monotonic() - start < 5
    assert len(asked) == 1
    release.set()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError("no route to host."), "could not be reached (no route to host)"),
        (ValueError(), "could not be reached (ValueError)"),
    ],
)
def test_whatever_goes_wrong_on_the_way_is_the_reason(monkeypatch, failure, reason):
    class Session:
        def head(self, *_, **__):
            raise failure

    monkeypatch.setattr(hub, "get_session", Session)
    assert hub.silence() == f"the Hugging Face Hub {reason}"


def test_a_port_at_which_nobody_listens_is_said(monkeypatch):
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "Connection refused" in hub.silence()


def test_the_status_is_the_answer(monkeypatch, serve):
    server, address = serve({"nobody": 404, "ill": 503, "private": 401, "gated": 403})
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    assert hub.silence() is None
    assert hub.refusal("gpt2") is None
    for repo, status in [("nobody", "404)"), ("ill", "503)"), ("private", "401: a private or")]:
        said = f"the Hugging Face Hub does not give it to us (HTTP status {status}"
        assert said in hub.refusal(f"{repo}/model")
    assert "HTTP status 403: a private or gated model needs a token" in hub.refusal("gated/model")
    assert [path for path, _ in server.asked] == [
        "/api/models?limit=1",
        "/gpt2/resolve/main/config.json",
        "/nobody/model/resolve/main/config.json",
        "/api/models/nobody/model",
        "/ill/model/resolve/main/config.json",
        "/private/model/resolve/main/config.json",
        "/gated/model/resolve/main/config.json",
    ]


def test_the_token_goes_to_the_hub_and_to_no_host_it_redirects_to(monkeypatch, serve):
    elsewhere, other_address = serve()
    server, address = serve({"moved": 307}, moved_to=other_address)
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.refusal("moved/model") is None
    assert [token for _, token in server.asked] == [f"Bearer {TOKEN}"] * 2
    assert elsewhere.asked == []


def test_offline_mode_asks_nobody_and_is_named(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("asked"))
    assert hub.silence() == "HF_HUB_OFFLINE is set, so the Hugging Face Hub is not asked"
    assert hub.refusal("gpt2") == hub.silence()


@pytest.mark.parametrize("address", ["nohost", "ftp://host", "https://"])
def test_an_endpoint_that_is_no_web_address_is_named(monkeypatch, address):
    monkeypatch.setattr(hub.constants, "ENDPOINT", address)
    assert hub.silence() == (
        f"HF_ENDPOINT is {address!r}, no address such as https://huggingface.co"
    )


def time_out():
    """The time-out of the HTTP client that this huggingface_hub uses: httpx or httpx2."""
    client = sys.modules[type(hub.get_session()).__module__.split(".")[0]]
    return client.ReadTimeout("read timed out")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (lambda: Exception("the store is closed.\nTry again"), "the store is closed"),
        (RuntimeError, "RuntimeError"),
        (time_out, "read timed out"),
    ],
)
def test_a_transfer_that_breaks_off_is_an_os_error(monkeypatch, failure, reason):
    error = failure()
    assert not isinstance(error, OSError)

    def break_off(*_, **__):
        raise error

    monkeypatch.setattr(hub, "HfApi", break_off)
    with pytest.raises(OSError, match=f"^{reason}$"):
        hub.download_model("gpt2")


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("gpt2", True),
        ("Qwen/Qwen3-0.6B", True),
        ("gpt2--x", False),
        ("a/b/c", False),
        ("./gpt2", False),
        ("what is this", False),
        ("", False),
    ],
)
def test_names_a_repository_can_have(name, possible):
    assert hub.is_repo_id(name) is possible


def test_an_interpreter_with_a_hanging_request_can_end():
    code = (
        "import socket\n"
        "from pruning_kit.inputs import hub\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"  # accepts, and says nothing
        "hub.constants.ENDPOINT = f'http://127.0.0.1:{listener.getsockname()[1]}'\n"
        "hub.DEADLINE_S = 0.2\n"
        "print(hub.silence())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "PYTHONPATH": "src", "NO_PROXY": "*", "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "the Hugging Face Hub did not answer within 0 seconds\n"
    assert done.stderr == ""


@pytest.fixture
def publish(monkeypatch, serve, tmp_path):
    """Put files on a Hub of this machine, as some/model, with an empty local cache."""

    def start(files):
        server, address = serve(files=files)
        monkeypatch.setattr(hub.constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_XET", True)
        return server

    return start


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


COPIES = dict.fromkeys(
    (
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "model.fp16.safetensors.index.json",
        "model.fp16-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "original/model.safetensors",
        "original/params.json",
        "tf_model.h5",
        "gguf/model.gguf",
    ),
    b"a copy for other programs",
)


def test_only_what_belongs_to_the_model_is_downloaded(publish, tmp_path):
    own = contents(save_tiny_gpt2(tmp_path / "own"))
    surplus = {"model-00001-of-00001.safetensors": b"the same in shards", "README.md": b"card"}
    server = publish({**own, **COPIES, **surplus})
    source = find_model("some/model")
    fetched = {name for name in server.asked if not name.endswith((".json", ".md"))}
    assert fetched == {"model.safetensors"}
    assert not any("/" in name for name in server.asked)
    assert {*own, "README.md"} <= set(server.asked)
    assert (source.revision, source.folder.name) == (COMMIT, COMMIT)
    assert load_model(source).stored_dtype == "float32"


def test_the_shards_that_the_index_names_are_downloaded_and_found_in_the_cache(publish, tmp_path):
    own = contents(save_tiny_gpt2(tmp_path / "own"))
    shard = "pytorch_model-[1].safetensors"
    own[shard] = own.pop("model.safetensors")
    own["model.safetensors.index.json"] = json.dumps({"weight_map": {"any": shard}}).encode()
    server = publish({**own, **COPIES})
    assert hub.cached_model("some/model") is None
    folder = hub.download_model("some/model")
    assert {name for name in server.asked if name.endswith(".safetensors")} == {shard}
    assert hub.cached_model("some/model") == folder
    (folder / shard).unlink()
    assert hub.cached_model("some/model") is None


ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pytorch_model.bin": b"x", "config.json": b"{}"}, "a pickle ('pytorch_model.bin')"),
        ({"tiny.Q4_0.gguf": b"x"}, "weights only as GGUF ('tiny.Q4_0.gguf')"),
        (ADAPTER, "it holds a PEFT adapter ('adapter_config.json')"),
        ({"notes.txt": b"x"}, "the repository holds no config.json"),
    ],
)
def test_a_repository_without_weights_that_are_read_is_told_by_what_it_has(publish, files, said):
    server = publish(files)
    with pytest.raises(ModelError) as error:
        find_model("some/model")
    assert str(error.value).startswith("cannot load model 'some/model': ")
    assert said in str(error.value)
    assert set(server.asked) <= {"config.json"}


def test_a_cached_copy_that_is_a_pickle_is_the_reason_where_no_hub_answers(publish, monkeypatch):
    publish({"pytorch_model.bin": b"x", "config.json": b"{}"})
    hub.snapshot_download("some/model")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'some/model': it has weights only as a pickle \('pyt"):
        find_model("some/model")
