// Clients in Go of two systems: katexochen/sync's FIFOs, asked as its own client asks (net/http
// without a timeout, GET without a body, answers read with google/uuid), and session-queue's tokens,
// made and read by the library that its server uses (golang-jwt).
//
//	sync exclusive COUNT URL...    so many clients of one FIFO, spread over the nodes
//	sync released COUNT URL...     so many waits on each of two tickets
//	sync sign SECRET POSITION IAT  the token of a place
//	sync verify SECRET TOKEN       the place of a token
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("give a verb and its arguments")
	}
	switch args[0] {
	case "exclusive", "released":
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if args[0] == "exclusive" {
			return exclusive(count, args[2:])
		}
		return released(count, args[2:])
	case "sign":
		return sign(args[1], args[2], args[3])
	case "verify":
		return verify(args[1], args[2])
	}
	return fmt.Errorf("no verb %q", args[0])
}

// One client of one FIFO, with connections of its own, as each process has them.
type client struct {
	endpoint string
	fifo     uuid.UUID
	http     *http.Client
}

func at(endpoint string, fifo uuid.UUID) *client {
	return &client{endpoint, fifo, &http.Client{Transport: &http.Transport{}}}
}

func (c *client) get(ctx context.Context, answer any, parts ...string) error {
	base, err := url.Parse(c.endpoint)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(
		ctx, http.MethodGet, base.JoinPath(parts...).String(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%v: status code %d", parts, response.StatusCode)
	}
	if answer == nil {
		body, err := io.ReadAll(response.Body)
		if err == nil && len(body) > 0 {
			err = fmt.Errorf("%v: a body of %d bytes", parts, len(body))
		}
		return err
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

func (c *client) create(ctx context.Context) error {
	var answer struct {
		UUID uuid.UUID `json:"uuid"`
	}
	err := c.get(ctx, &answer, "fifo", "new")
	c.fifo = answer.UUID
	return err
}

func (c *client) take(ctx context.Context) (uuid.UUID, error) {
	var answer struct {
		Ticket uuid.UUID `json:"ticket"`
	}
	err := c.get(ctx, &answer, "fifo", c.fifo.String(), "ticket")
	return answer.Ticket, err
}

func (c *client) wait(ctx context.Context, ticket uuid.UUID) error {
	return c.get(ctx, nil, "fifo", c.fifo.String(), "wait", ticket.String())
}

func (c *client) done(ctx context.Context, ticket uuid.UUID) error {
	return c.get(ctx, nil, "fifo", c.fifo.String(), "done", ticket.String())
}

// No two clients ever have their turn at the same time, and each gets one.
func exclusive(count int, endpoints []string) error {
	ctx := context.Background()
	maker := at(endpoints[0], uuid.Nil)
	if err := maker.create(ctx); err != nil {
		return err
	}
	var inside sync.Mutex
	one := func(number int) error {
		time.Sleep(time.Duration(rand.Intn(300)) * time.Millisecond)
		c := at(endpoints[number%len(endpoints)], maker.fifo)
		ticket, err := c.take(ctx)
		if err != nil {
			return err
		}
		if err := c.wait(ctx, ticket); err != nil {
			return err
		}
		if !inside.TryLock() {
			return errors.New("two clients have their turn")
		}
		time.Sleep(time.Duration(rand.Intn(5)) * time.Millisecond)
		inside.Unlock()
		return c.done(ctx, ticket)
	}
	began := time.Now()
	if err := all(count, one); err != nil {
		return err
	}
	fmt.Printf("%d turns in %v\n", count, time.Since(began))
	return nil
}

// All who wait on a ticket are released together: when its turn has come, and when it is done.
func released(count int, endpoints []string) error {
	ctx := context.Background()
	maker := at(endpoints[0], uuid.Nil)
	if err := maker.create(ctx); err != nil {
		return err
	}
	first, err := maker.take(ctx)
	if err != nil {
		return err
	}
	second, err := maker.take(ctx)
	if err != nil {
		return err
	}
	if err := maker.wait(ctx, first); err != nil {
		return err
	}
	errs := make(chan error, 2)
	for _, ticket := range []uuid.UUID{first, second} {
		go func() {
			errs <- all(count, func(number int) error {
				return at(endpoints[number%len(endpoints)], maker.fifo).wait(ctx, ticket)
			})
		}()
	}
	// Those on the first return at once, those on the second stand in line meanwhile.
	if err := <-errs; err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	select {
	case err := <-errs:
		return fmt.Errorf("nobody waits for the second ticket: %v", err)
	default:
	}
	if err := maker.done(ctx, first); err != nil {
		return err
	}
	if err := <-errs; err != nil {
		return err
	}
	fmt.Printf("%d waits released\n", 2*count)
	return maker.done(ctx, second)
}

func all(count int, one func(number int) error) error {
	var group sync.WaitGroup
	errs := make(chan error, count)
	for number := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			errs <- one(number)
		}()
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func sign(secret, position, issued string) error {
	place, err := strconv.ParseInt(position, 10, 64)
	if err != nil {
		return err
	}
	now, err := strconv.ParseInt(issued, 10, 64)
	if err != nil {
		return err
	}
	claims := jwt.MapClaims{"sub": place, "iat": now, "exp": now + 10_800}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	fmt.Println(token)
	return err
}

func verify(secret, text string) error {
	key := func(*jwt.Token) (any, error) { return []byte(secret), nil }
	token, err := jwt.Parse(text, key, jwt.WithValidMethods([]string{"HS256"}))
	if err != nil {
		return err
	}
	place, isNumber := token.Claims.(jwt.MapClaims)["sub"].(float64)
	if !isNumber {
		return errors.New("sub is no number")
	}
	fmt.Println(int64(place))
	return nil
}
