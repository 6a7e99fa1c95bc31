package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	maxAge  = 300 * time.Second // the server's max-age
	maxSize = 1 << 20
)

// errUnavailable: the keys cannot be read, which says nothing about the token.
var errUnavailable = errors.New("the keys cannot be read")

// keys are those of AuthService, read again when they are old and when a kid is unknown.
//
// keyfunc can read them by itself, but then the time that an unknown kid waits for its turn and the time to read the keys share one
// limit: a flood of unknown kids leaves no time for reading.
type keys struct {
	url    string
	client *http.Client
	// Anybody can make up kids: two readings for unknown ones are so far apart at least.
	cooldown time.Duration

	// Locked while the keys are read, so that many requests read them once.
	mutex  sync.Mutex
	known  keyfunc.Keyfunc
	readAt time.Time
}

func newKeys(url string, cooldown time.Duration) *keys {
	return &keys{url: url, client: &http.Client{Timeout: 5 * time.Second}, cooldown: cooldown}
}

// find returns the key that the token's header names, if it is for the header's algorithm.
func (k *keys) find(ctx context.Context, token *jwt.Token) (any, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if age := time.Since(k.readAt); k.known != nil && age < maxAge {
		key, err := k.known.Keyfunc(token)
		if !errors.Is(err, jwkset.ErrKeyNotFound) || age < k.cooldown {
			return key, err
		}
	}
	known, err := k.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	k.known, k.readAt = known, time.Now()
	return known.Keyfunc(token)
}

func (k *keys) read(ctx context.Context) (keyfunc.Keyfunc, error) {
	// Others wait for these keys too: a client that hangs up does not end the reading.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSize))
	if err != nil {
		return nil, err
	}
	return keyfunc.NewJWKSetJSON(body)
}
