"""Who may ask: names of the server, pages of other sites, tokens."""

import asyncio

import pytest

from helpers.asgi import HERE, PATHS, PHOTO, SCOPE, refused, serve_inside
from pronk.server.gateway import HEADERS, OPEN_PATHS, Access

TOKEN = "a token, not a secret"


@pytest.fixture(scope="module")
def closed(served_model):
    """A server that wants a token."""
    with serve_inside(served_model, access=Access("0.0.0.0", TOKEN)) as server:
        yield server


@pytest.mark.parametrize(
    ("access", "allowed", "not_allowed"),
    [
        (
            HERE,
            ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "[::1]"],
            ["", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil@x",
             "[", "[::1", "]", "127.0.0.1 evil.example", "localhost.", "192.168.0.2", "2130706433", "\x00"],
        ),
        (Access("192.168.0.2"), ["192.168.0.2:80", "localhost"], ["192.168.0.3", "evil.example"]),
        (Access("Station.Local"), ["station.local:80"], ["other.local"]),
        (Access("::1"), ["[::1]:8000", "127.0.0.1"], ["[::2]:8000"]),
        (Access("0.0.0.0", TOKEN), ["evil.example", "", "["], []),
        (Access("0.0.0.0", anyone=True), ["evil.example", "", "["], []),
    ],
)  # fmt: skip
def test_the_server_answers_to_its_own_names(access, allowed, not_allowed):
    assert [host for host in allowed if not access.allows_host(host)] == []
    assert [host for host in not_allowed if access.allows_host(host)] == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/v1/model"), ("POST", "/v1/predict")])
@pytest.mark.parametrize("host", ["evil.example:8000", "[", ""])
def test_other_names_are_refused(inside, method, path, host):
    answer = inside.ask(method, path, headers={"host": host}, content=PHOTO if method == "POST" else None)
    assert host in refused(answer, 403, "forbidden")["error"]
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]


def test_every_name_where_everybody_may_come(served_model):
    with serve_inside(served_model, access=Access("0.0.0.0", anyone=True)) as server:
        for host in ("evil.example", "[", "a b", "", "\x7f"):
            assert server.get("/v1/model", headers={"host": host}).status_code == 200
            refused(server.get("/nothing", headers={"host": host}), 404, "not_found")
            refused(server.ask("PUT", "/v1/model", headers={"host": host}), 405, "not_allowed")
            answer = server.post("/v1/predict", headers={"host": host, "origin": f"http://{host}"}, content=PHOTO)
            assert answer.status_code == (200 if host else 403)


OURS = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OURS}, 200),
        ({"origin": OURS.upper()}, 200),
        ({"origin": "https://127.0.0.1:8000"}, 200),  # a proxy before us may speak TLS
        ({"origin": OURS, "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "http://evil.example@127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "127.0.0.1:8000"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(inside, headers, status):
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    for path in ("/v1/predict", "/v1/model/reload", "/v1/teach/train"):
        answer = inside.post(path, content=PHOTO, headers=sent)
        if status == 403:
            assert refused(answer, 403, "forbidden")["error"] == "another site's page sent this"
        else:
            assert answer.json() if answer.status_code == 200 else answer.json()["code"] != "forbidden"
    assert inside.get("/v1/model", headers=sent).status_code == 200, "what changes nothing needs no proof"


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"Bearer  {TOKEN} ", True),
        ("", False),
        ("Bearer", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Bearer {TOKEN}x", False),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        ("Bearer \u00e9", False),
    ],
)
def test_only_the_token_opens(closed, authorization, allowed):
    assert Access("x", TOKEN).allows_token(authorization) is allowed
    answer = closed.post("/v1/predict", content=PHOTO, headers=[(b"authorization", authorization.encode("latin-1"))])
    if allowed:
        assert answer.status_code == 200
    else:
        assert "--token" in refused(answer, 401, "unauthorized")["hint"]
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
def test_every_answer_is_safe_and_few_are_free_of_the_token(closed, method, path, status):
    """The pages hold no data, and whoever watches the health of the server has no token."""
    sent = {"origin": "http://127.0.0.1:8000"}
    barred, answer = (
        closed.ask(method, path, headers=sent | shown) for shown in ({}, {"authorization": f"Bearer {TOKEN}"})
    )
    if path in OPEN_PATHS or path.startswith("/page/"):
        assert barred.status_code == status
    else:
        refused(barred, 401, "unauthorized")
    assert answer.status_code == status
    if status >= 400:
        refused(answer, status, {404: "not_found", 405: "not_allowed"}.get(status, answer.json()["code"]))
    for headers in (barred.headers, answer.headers):
        assert {name: headers.get_list(name) for name in HEADERS} == {name: [value] for name, value in HEADERS.items()}
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.startswith("access-control-")]
        assert not {"server", "set-cookie", "location"} & set(headers)


@pytest.mark.parametrize("path", ["/page/../v1/model", "/page/%2e%2e/v1/model", "//v1/model", "/docs/../v1/model",
                                  "/v1/model?x=/page/", "/V1/model", "/v1//model"])  # fmt: skip
def test_no_detour_around_the_token(closed, path):
    sent = {"method": "GET", "path": path.replace("%2e", ".").split("?")[0], "raw_path": path.encode()}
    assert call(closed.app, sent) in (401, 404)


def call(app, scope):
    """Call the app as a server does that leaves paths as they came; return the status."""
    statuses = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        statuses.append(message.get("status"))

    asyncio.run(app(SCOPE | scope, receive, send))
    return statuses[0]
