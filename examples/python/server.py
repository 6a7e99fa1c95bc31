"""A resource server that takes AuthService's access tokens: GET /orders.

AUTH_ISSUER is the base URL of AuthService, AUTH_AUDIENCE the audience that tokens must name (default: the issuer), PORT where to
listen, AUTH_JWKS_COOLDOWN how many seconds apart two readings of the keys for an unknown kid are at least.
"""

import http.client
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

ISSUER = os.environ["AUTH_ISSUER"]
AUDIENCE = os.environ.get("AUTH_AUDIENCE", ISSUER)
COOLDOWN = float(os.environ.get("AUTH_JWKS_COOLDOWN", "30"))
# An allow-list, so that a token cannot choose `none` or take a public key for an HMAC secret (RFC 8725 3.1).
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]


class Keys(jwt.PyJWKClient):
    """The JWK Set, read again after 300 seconds (the server's max-age), and for an unknown kid.

    PyJWT alone reads it for every unknown kid, and anybody can make up kids.
    """

    def __init__(self, url):
        super().__init__(url, lifespan=300, timeout=5)
        self._lock = threading.Lock()
        self._read_at = float("-inf")

    def get_jwk_set(self, refresh=False):
        with self._lock:
            return super().get_jwk_set(refresh and time.monotonic() - self._read_at >= COOLDOWN)

    def fetch_data(self):
        keys = super().fetch_data()
        self._read_at = time.monotonic()
        return keys


class Unavailable(Exception):
    """The keys cannot be read: that says nothing about the token."""


keys = Keys(f"{ISSUER}/.well-known/jwks.json")


def verify(token):
    """The claims of an access token. Raises jwt.PyJWTError when it is refused, Unavailable when nobody can tell."""
    header = jwt.get_unverified_header(token)
    # RFC 9068 4: no other kind of token that AuthService signs is an access token. PyJWT does not look at typ.
    if header.get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    try:
        key = keys.get_signing_key(header.get("kid"))
    except (jwt.PyJWKClientConnectionError, OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable from error
    return jwt.decode(
        token,
        key,  # the whole JWK: its `alg` verifies, not the header's
        algorithms=ALGORITHMS,
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=10,
        options={"require": ["exp", "iat", "iss", "aud", "sub"]},
    )


class Orders(BaseHTTPRequestHandler):
    timeout = 30

    def do_GET(self):
        if self.path != "/orders":
            self.answer(404, {"error": "not found"})
            return
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            # RFC 6750 3.1: no error code when the request has no token.
            self.answer(401, {"error": "no token"}, {"WWW-Authenticate": "Bearer"})
            return
        try:
            claims = verify(token.strip())
        except jwt.PyJWTError as error:
            self.log_message("token refused: %s", error)
            self.answer(401, {"error": "invalid token"}, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        except Unavailable as error:
            self.log_message("the keys cannot be read: %s", error.__cause__)
            self.answer(503, {"error": "cannot verify tokens now"}, {"Retry-After": "1"})
        else:
            self.answer(200, {"sub": claims["sub"], "orders": []})

    def answer(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Orders).serve_forever()
