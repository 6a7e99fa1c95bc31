// A resource server that takes AuthService's access tokens: GET /orders.
//
// AUTH_ISSUER is the base URL of AuthService, AUTH_AUDIENCE the audience that tokens must name (default: the issuer), PORT where
// to listen, AUTH_JWKS_COOLDOWN how many seconds apart two readings of the keys for an unknown kid are at least.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

type verifier struct {
	keys   *keys
	parser *jwt.Parser
}

func newVerifier(issuer, audience string, cooldown time.Duration) *verifier {
	parser := jwt.NewParser(
		// An allow-list, so that a token cannot choose its own (RFC 8725 3.1).
		jwt.WithValidMethods([]string{"RS256", "PS256", "ES256", "EdDSA"}),
		jwt.WithIssuer(issuer),
		jwt.WithAudience(audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(10*time.Second),
	)
	return &verifier{newKeys(issuer+"/.well-known/jwks.json", cooldown), parser}
}

// verify returns the claims of an access token.
func (v *verifier) verify(ctx context.Context, text string) (*jwt.RegisteredClaims, error) {
	claims := &jwt.RegisteredClaims{}
	_, err := v.parser.ParseWithClaims(text, claims, func(token *jwt.Token) (any, error) {
		// RFC 9068 4: no other kind of token that AuthService signs is an access token.
		if token.Header["typ"] != "at+jwt" {
			return nil, errors.New("not an access token")
		}
		// keyfunc would try every key.
		if kid, _ := token.Header["kid"].(string); kid == "" {
			return nil, errors.New("no kid")
		}
		return v.keys.find(ctx, token)
	})
	if err != nil {
		return nil, err
	}
	if claims.Subject == "" {
		return nil, errors.New("no subject")
	}
	return claims, nil
}

func (v *verifier) orders(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		// RFC 6750 3.1: no error code when the request has no token.
		w.Header().Set("WWW-Authenticate", "Bearer")
		answer(w, http.StatusUnauthorized, map[string]any{"error": "no token"})
		return
	}
	claims, err := v.verify(r.Context(), strings.TrimSpace(token))
	switch {
	case errors.Is(err, errUnavailable):
		log.Print(err)
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, map[string]any{"error": "cannot verify tokens now"})
	case err != nil:
		log.Printf("token refused: %v", err)
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid token"})
	default:
		answer(w, http.StatusOK, map[string]any{"sub": claims.Subject, "orders": []any{}})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("answer: %v", err)
	}
}

func main() {
	issuer := os.Getenv("AUTH_ISSUER")
	if issuer == "" {
		log.Fatal("AUTH_ISSUER is not set")
	}
	cooldown, err := strconv.ParseFloat(cmp.Or(os.Getenv("AUTH_JWKS_COOLDOWN"), "30"), 64)
	if err != nil {
		log.Fatalf("AUTH_JWKS_COOLDOWN: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	v := newVerifier(issuer, cmp.Or(os.Getenv("AUTH_AUDIENCE"), issuer), time.Duration(cooldown*float64(time.Second)))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", v.orders)
	server := &http.Server{
		Addr:              "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "8080"),
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
	}
	go func() {
		<-ctx.Done()
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
