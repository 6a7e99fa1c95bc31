"""Verifies an access token as a resource server in Python does, and prints its claims.

Arguments: the URL of the JWK Set, issuer, audience, algorithm, token. Exits with 1 and the reason when the token is refused.
"""

import json
import sys

import jwt


def main() -> int:
    jwks_url, issuer, audience, algorithm, token = sys.argv[1:]
    try:
        # RFC 9068 4: PyJWT does not look at typ by itself.
        typ = jwt.get_unverified_header(token).get("typ")
        key = jwt.PyJWKClient(jwks_url).get_signing_key_from_jwt(token)
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            issuer=issuer,
            audience=audience,
            options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
        )
        if typ != "at+jwt":
            raise jwt.InvalidTokenError(f"typ is {typ}")
    except jwt.PyJWTError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(claims))
    return 0


if __name__ == "__main__":
    sys.exit(main())
