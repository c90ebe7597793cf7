"""Asking the Hub: decided within the deadline, once, whatever the network does."""

import threading
import time
import urllib.error

import pytest

from pruning_kit.inputs import hub


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "DEADLINE_S", 0.2)
    hub.answers.cache_clear()
    yield
    hub.answers.cache_clear()


def test_a_name_server_that_hangs_costs_the_deadline_once(monkeypatch):
    release = threading.Event()
    asked = []

    def hang(request, timeout):
        asked.append(request.full_url)
        release.wait(10)
        raise OSError

    monkeypatch.setattr(hub.urllib.request, "urlopen", hang)
    start = time.monotonic()
    assert hub.answers("gpt2/resolve/main/config.json") is None
    assert hub.answers("other/resolve/main/config.json") is None
    assert time.monotonic() - start < 2
    assert len(asked) == 1
    release.set()


@pytest.mark.parametrize("failure", [OSError("unreachable"), urllib.error.URLError("no name")])
def test_no_network_is_no_answer(monkeypatch, failure):
    def fail(request, timeout):
        raise failure

    monkeypatch.setattr(hub.urllib.request, "urlopen", fail)
    assert hub.answers() is None


def test_the_status_is_the_answer(monkeypatch):
    def not_found(request, timeout):
        if "nobody" in request.full_url:
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", None, None)
        return Response()

    monkeypatch.setattr(hub.urllib.request, "urlopen", not_found)
    assert hub.answers("nobody/resolve/main/config.json") == 404
    assert hub.answers("gpt2/resolve/main/config.json") == 200


class Response:
    status = 200

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    assert hub.answers() is None
