// Verifies an access token as a resource server in JavaScript does, and prints its claims.
//
// Arguments: the URL of the JWK Set, issuer, audience, algorithm, token. Exits with 1 and the reason when the token is refused.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.VERIFIER_NODE_DIR}/x.js`);
const jose = await import(pathToFileURL(require.resolve('jose')));

const [jwksUrl, issuer, audience, algorithm, token] = process.argv.slice(2);
try {
  const keys = jose.createRemoteJWKSet(new URL(jwksUrl));
  const { payload } = await jose.jwtVerify(token, keys, {
    issuer,
    audience,
    algorithms: [algorithm],
    typ: 'at+jwt',
    requiredClaims: ['exp', 'iat', 'iss', 'aud', 'sub', 'jti'],
  });
  console.log(JSON.stringify(payload));
} catch (error) {
  if (!(error instanceof jose.errors.JOSEError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
}
