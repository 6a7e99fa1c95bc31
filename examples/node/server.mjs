// A resource server that takes AuthService's access tokens: GET /orders.
//
// AUTH_ISSUER is the base URL of AuthService, AUTH_AUDIENCE the audience that tokens must name (default: the issuer), PORT where
// to listen, AUTH_JWKS_COOLDOWN how many seconds apart two readings of the keys for an unknown kid are at least.

import { createServer } from 'node:http'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const issuer = process.env.AUTH_ISSUER
if (!issuer) throw new Error('AUTH_ISSUER is not set')
const audience = process.env.AUTH_AUDIENCE || issuer

const options = {
  issuer,
  audience,
  // RFC 9068 4: no other kind of token that AuthService signs is an access token.
  typ: 'at+jwt',
  // An allow-list, so that a token cannot choose its own (RFC 8725 3.1).
  algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'],
  requiredClaims: ['exp', 'iat', 'sub'],
  clockTolerance: 10,
}

const remote = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), {
  cacheMaxAge: 300_000, // the server's max-age
  cooldownDuration: Number(process.env.AUTH_JWKS_COOLDOWN || 30) * 1000, // anybody can make up kids
  timeoutDuration: 5000,
})

/** The keys cannot be read: that says nothing about the token. */
class Unavailable extends Error {}

async function keys(header, token) {
  try {
    return await remote(header, token)
  } catch (error) {
    const { JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported } = errors
    if ([JWKSNoMatchingKey, JWKSMultipleMatchingKeys, JOSENotSupported].some((fault) => error instanceof fault)) throw error
    throw new Unavailable('the keys cannot be read', { cause: error })
  }
}

function answer(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(body))
}

const server = createServer(async (request, response) => {
  if (request.method !== 'GET' || request.url !== '/orders') return answer(response, 404, { error: 'not found' })
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? []
  // RFC 6750 3.1: no error code when the request has no token.
  if (!token) return answer(response, 401, { error: 'no token' }, { 'WWW-Authenticate': 'Bearer' })
  try {
    const { payload } = await jwtVerify(token, keys, options)
    answer(response, 200, { sub: payload.sub, orders: [] })
  } catch (error) {
    if (error instanceof errors.JOSEError) {
      console.error(`token refused: ${error.code}`)
      answer(response, 401, { error: 'invalid token' }, { 'WWW-Authenticate': 'Bearer error="invalid_token"' })
    } else {
      console.error(error)
      const status = error instanceof Unavailable ? 503 : 500
      answer(response, status, { error: 'cannot verify tokens now' }, { 'Retry-After': '1' })
    }
  }
})

server.listen(Number(process.env.PORT || 8080), '127.0.0.1')
