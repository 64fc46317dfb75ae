// A client of ticketd in Go, with Go's own HTTP client, which repeats and redirects on its own.
//
// ticketd's client library is in no module proxy, so this one is ours; it does what that one does:
// parameters in the query, JSON from every success, an error for any status of 300 and more, and a
// heartbeat that the first such error ends while a broken connection does not.
//
//	ticketd URL [URL...] tour           every call once; says "ok" or what was wrong
//	ticketd URL [URL...] hold SECONDS   keeps a session, a lock and a ticket by heartbeats of 100 ms,
//	                                    works meanwhile, and says what it saw as one line of JSON
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

type session struct {
	Name, Id, Src      string
	Ttl                int
	Tickets, Issuances []ticket
}

type ticket struct {
	Name, ResourceName string
	Data               []byte
	Issuer, Claimant   *session
}

type resource struct {
	Name    string
	IsLock  bool
	Tickets map[string]*ticket
}

type claim struct {
	Claimed bool
	Ticket  ticket
}

type status struct {
	Version, Uptime string
	Started         time.Time
	Uptime_t        time.Duration
	Started_t       time.Time
	NumCpus         int
	HeapAllocMB     float64
	HeapObjects     uint64
}

type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return fmt.Sprintf("HTTP %d = %s", e.code, e.text) }

type client struct {
	base string
	http http.Client
}

func newClient(base string) *client {
	return &client{base: base, http: http.Client{Timeout: 60 * time.Second}}
}

func (c *client) call(method, path string, query url.Values, body []byte, out any) error {
	request, err := http.NewRequest(method, c.base+"/api/v1"+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return &httpError{response.StatusCode, string(data)}
	}
	return json.Unmarshal(data, out)
}

func (c *client) open(name string, ttl time.Duration) (string, error) {
	id := ""
	query := url.Values{"name": {name}, "ttl": {strconv.FormatInt(ttl.Milliseconds(), 10)}}
	err := c.call("POST", "/sessions", query, nil, &id)
	return id, err
}

// do makes a call that answers with a word.
func (c *client) do(method, path, id, name string, body []byte) error {
	word := ""
	query := url.Values{}
	if id != "" {
		query.Set("sessid", id)
	}
	if name != "" {
		query.Set("name", name)
	}
	return c.call(method, path, query, body, &word)
}

func (c *client) claim(id, resource string) (*ticket, error) {
	found := claim{}
	err := c.call("POST", "/claims/"+resource, url.Values{"sessid": {id}}, nil, &found)
	if err != nil || !found.Claimed {
		return nil, err
	}
	return &found.Ticket, nil
}

func (c *client) has(id, resource, name string) (bool, error) {
	found := false
	query := url.Values{"sessid": {id}, "name": {name}}
	err := c.call("GET", "/claims/"+resource, query, nil, &found)
	return found, err
}

func (c *client) lock(id, resource string) (bool, error) {
	found := false
	err := c.call("POST", "/locks/"+resource, url.Values{"sessid": {id}}, nil, &found)
	return found, err
}

func check(is bool, what string) {
	if !is {
		fmt.Println(what)
		os.Exit(1)
	}
}

func must(err error, what string) {
	if err != nil {
		check(false, what+": "+err.Error())
	}
}

func code(err error) int {
	var failed *httpError
	if errors.As(err, &failed) {
		return failed.code
	}
	return 0
}

func tour(clients []*client) {
	at := func(number int) *client { return clients[number%len(clients)] }
	name := fmt.Sprintf("tour-%d", time.Now().UnixNano())
	issuer, err := at(0).open("issuer 1+2", 10*time.Second)
	must(err, "open")
	one, err := at(1).open("one", 10*time.Second)
	must(err, "open")
	two, err := at(2).open("two", 10*time.Second)
	must(err, "open")
	check(len(issuer) == 27 && issuer < one && one < two, "ids do not rise")

	must(at(0).do("POST", "/tickets/"+name, issuer, "ticket 1", []byte("FOO")), "issue")
	found, err := at(1).claim(one, name)
	must(err, "claim")
	check(found != nil && found.Name == "ticket 1" && found.ResourceName == name, "claim gave another")
	check(string(found.Data) == "FOO", "data")
	check(found.Issuer.Id == issuer && found.Issuer.Name == "issuer 1+2", "issuer")
	check(found.Claimant.Id == one && found.Claimant.Ttl == 10000, "claimant")
	has, err := at(2).has(one, name, "ticket 1")
	must(err, "has")
	check(has, "one does not have it")
	found, err = at(2).claim(two, name)
	must(err, "second claim")
	check(found == nil, "two have one ticket")
	must(at(0).do("DELETE", "/claims/"+name, one, "ticket 1", nil), "release")
	must(at(0).do("DELETE", "/claims/"+name, one, "ticket 1", nil), "release again")
	found, err = at(0).claim(two, name)
	must(err, "claim after release")
	check(found != nil, "nothing after release")
	must(at(1).do("DELETE", "/tickets/"+name, one, "ticket 1", nil), "revoke")
	has, err = at(2).has(two, name, "ticket 1")
	check(err == nil && !has || code(err) == 404, "has after revoke")

	locked, err := at(0).lock(one, name+".lock")
	must(err, "lock")
	check(locked, "not locked")
	locked, err = at(1).lock(two, name+".lock")
	must(err, "lock of another")
	check(!locked, "locked twice")
	dump := map[string]*resource{}
	must(at(2).call("GET", "/dump/resources/"+name+".lock", nil, nil, &dump), "dump")
	held := dump[name+".lock"]
	check(held != nil && held.IsLock && held.Tickets[name+".lock"].Issuer.Id == one, "dump of a lock")
	check(code(at(1).do("DELETE", "/locks/"+name+".lock", two, "", nil)) == 404, "unlock by another")
	must(at(2).do("DELETE", "/locks/"+name+".lock", one, "", nil), "unlock")
	sessions := map[string]*session{}
	must(at(1).call("GET", "/dump/sessions", nil, nil, &sessions), "sessions")
	check(sessions[issuer] != nil && sessions[issuer].Name == "issuer 1+2", "dump of sessions")
	shown := status{}
	must(at(0).call("GET", "/status", nil, nil, &shown), "status")
	check(shown.Version == "0.2.0" && !shown.Started.IsZero(), "status")

	// A slash too many is a redirect that Go's client follows with method and body.
	must(at(0).do("PUT", "/sessions/"+issuer+"/", "", "", nil), "redirected refresh")
	for number, id := range []string{issuer, one, two} {
		must(at(number).do("DELETE", "/sessions/"+id, "", "", nil), "close")
	}
	check(code(at(1).do("PUT", "/sessions/"+one, "", "", nil)) == 404, "a closed session lives")
	fmt.Println("ok")
}

func hold(clients []*client, length time.Duration) {
	report := struct {
		Beats, Broken, Rounds, Lost int64
		Errors                      []string
	}{Errors: []string{}}
	mine := clients[0]
	name := fmt.Sprintf("hold-%d", time.Now().UnixNano())
	id, err := mine.open("holder", 2*time.Second)
	must(err, "open")
	locked, err := mine.lock(id, name+".lock")
	must(err, "lock")
	check(locked, "not locked")
	must(mine.do("POST", "/tickets/"+name, id, "t", []byte("x")), "issue")

	var ending atomic.Bool
	beaten := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for range ticker.C {
			if ending.Load() {
				beaten <- nil
				return
			}
			err := mine.do("PUT", "/sessions/"+id, "", "", nil)
			if code(err) != 0 {
				beaten <- err
				return
			}
			report.Beats++
			if err != nil {
				report.Broken++
			}
		}
	}()
	other := clients[len(clients)-1]
	taker, err := other.open("taker", time.Hour)
	must(err, "open")
	for until := time.Now().Add(length); time.Now().Before(until); report.Rounds++ {
		found, err := other.claim(taker, name)
		if err == nil && found == nil {
			report.Lost++
		}
		if err == nil {
			err = other.do("DELETE", "/claims/"+name, taker, "t", nil)
		}
		locked, lockErr := other.lock(taker, name+".lock")
		if locked {
			report.Lost++
		}
		for _, each := range []error{err, lockErr} {
			if code(each) != 0 {
				report.Errors = append(report.Errors, each.Error())
			}
		}
	}
	ending.Store(true)
	if err := <-beaten; err != nil {
		report.Errors = append(report.Errors, err.Error())
	}
	line, err := json.Marshal(report)
	must(err, "report")
	fmt.Println(string(line))
}

func main() {
	clients := []*client{}
	rest := os.Args[1:]
	for len(rest) > 0 && len(rest[0]) > 4 && rest[0][:4] == "http" {
		clients = append(clients, newClient(rest[0]))
		rest = rest[1:]
	}
	switch {
	case len(clients) > 0 && len(rest) == 1 && rest[0] == "tour":
		tour(clients)
	case len(clients) > 0 && len(rest) == 2 && rest[0] == "hold":
		seconds, err := strconv.ParseFloat(rest[1], 64)
		must(err, "seconds")
		hold(clients, time.Duration(seconds*float64(time.Second)))
	default:
		check(false, "usage: ticketd URL [URL...] tour | hold SECONDS")
	}
}
