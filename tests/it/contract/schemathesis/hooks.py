"""What Schemathesis cannot know of this API: how to get a token that lives, and what every answer has.

With SCHEMATHESIS_TOKENS=none in the environment no request has a token.
"""

import os
import uuid

import requests
import schemathesis

PASSWORD = "Str0ng!Passw0rd"
# After these there is another token, or none.
ENDING = ("/auth/refresh", "/auth/logout", "/auth/logout-all", "/auth/sessions/{session_id}")


def post(path, body):
    answer = requests.post(os.environ["SCHEMATHESIS_API"] + path, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def is_alive(pair):
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    return requests.get(os.environ["SCHEMATHESIS_API"] + "/users/me", headers=headers, timeout=30).status_code == 200


class Tokens:
    """A pair of its own for each request that ends its session, and one pair for all others."""

    def __init__(self):
        self.user = {"email": f"schemathesis.{uuid.uuid4()}@example.com", "password": PASSWORD}
        post("/users/register", self.user)
        self.pair = None

    def get(self, case, context):
        if case.operation.path.endswith(ENDING):
            return post("/auth/login", self.user)
        if self.pair is None or not is_alive(self.pair):
            self.pair = post("/auth/login", self.user)
        return self.pair

    def set(self, case, pair, context):
        schemes = [name for one in case.operation.definition.raw.get("security", []) for name in one]
        if schemes:
            token = pair["refresh_token" if "RefreshToken" in schemes else "access_token"]
            case.headers["Authorization"] = f"Bearer {token}"


if os.environ.get("SCHEMATHESIS_TOKENS") != "none":
    schemathesis.auth(refresh_interval=None)(Tokens)


@schemathesis.check
def what_every_answer_has(ctx, response, case):
    """Headers of every answer, and a password that is not echoed."""
    headers = {name: value[0] for name, value in response.headers.items()}
    assert headers.get("x-request-id"), "no X-Request-Id"
    assert headers.get("x-content-type-options") == "nosniff", "no nosniff"
    assert case.operation.path == "/" or headers.get("cache-control") == "no-store", "may be cached"
    assert "server" not in headers, "names its software"
    body = case.body if isinstance(case.body, dict) else {}
    password = body.get("password")
    shown = [body.get("email"), body.get("full_name")]
    if isinstance(password, str) and len(password) >= 12 and not any(password in str(text) for text in shown):
        assert password not in response.text, "echoes the password"
