// A client of goyaad's in Go, on net/rpc and gob as its own RPCClient is.
//
// The published module of goyaad cannot be had any more, so its structs, its client's calls and the
// pattern of its load test are here in our own words; the wire is Go's own. Also the far side of a
// comparison: a plain net/rpc server whose errors ours must have, and a maker of snapshot files.
//
//	client ADDR                      calls from stdin, a JSON object a line; answers to stdout
//	loadtest ADDR CONNECTIONS JOBS   the load test: put, next and cancel, each connection shared
//	latency ADDR ROUNDS              put and next, one after the other: milliseconds
//	server                           a net/rpc server of the same methods; prints its address
//	snapshot FILE JOBS               a jobs.snapshot
//	ticketd FOLDER                   sessions.gob and resources.gob, as ticketd writes them
//	values                           gob values of all kinds, in hex, each with its JSON
package main

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand"
	"net"
	"net/rpc"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb/journal"
)

const timedOut = "No new jobs available in given timeout"

// RPCJob is goyaad's wire form of a job.
type RPCJob struct {
	Body  []byte
	ID    string
	Delay time.Duration
}

func put(c *rpc.Client, id string, body []byte, delay time.Duration) (string, error) {
	var reply string
	err := c.Call("RPCServer.PutWithID", RPCJob{body, id, delay}, &reply)
	return reply, err
}

func cancel(c *rpc.Client, id string) error {
	var ignore int8
	return c.Call("RPCServer.Cancel", id, &ignore)
}

func next(c *rpc.Client, timeout time.Duration) (string, []byte, error) {
	var job RPCJob
	err := c.Call("RPCServer.Next", timeout, &job)
	return job.ID, job.Body, err
}

func inspect(c *rpc.Client, n int) ([]*RPCJob, error) {
	var jobs []*RPCJob
	err := c.Call("RPCServer.InspectN", n, &jobs)
	return jobs, err
}

func ping(c *rpc.Client) error {
	var reply string
	err := c.Call("RPCServer.Ping", 0, &reply)
	if err == nil && reply != "pong" {
		return errors.New("no pong: " + reply)
	}
	return err
}

func dial(addr string) *rpc.Client {
	c, err := rpc.Dial("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

type ask struct {
	Seq     int
	Call    string
	ID      string
	Body    []byte
	Delay   time.Duration
	Timeout time.Duration
	N       int
}

type answer struct {
	Seq   int
	ID    string
	Body  []byte
	Error string
	Jobs  []*RPCJob
}

// client makes each call as it is read; all go on side by side over one connection.
func client(addr string) {
	c := dial(addr)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	var lock sync.Mutex
	var calls sync.WaitGroup
	for lines.Scan() {
		var a ask
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			log.Fatal(err)
		}
		calls.Add(1)
		go func() {
			defer calls.Done()
			got := answer{Seq: a.Seq}
			var err error
			switch a.Call {
			case "put":
				got.ID, err = put(c, a.ID, a.Body, a.Delay)
			case "next":
				got.ID, got.Body, err = next(c, a.Timeout)
			case "cancel":
				err = cancel(c, a.ID)
			case "inspect":
				got.Jobs, err = inspect(c, a.N)
			case "ping":
				err = ping(c)
			}
			if err != nil {
				got.Error = err.Error()
			}
			lock.Lock()
			defer lock.Unlock()
			if err := out.Encode(got); err != nil {
				log.Fatal(err)
			}
		}()
	}
	calls.Wait()
	c.Close()
}

// loadtest is goyaad's: ids "0" to "n-1" from a shared channel, bodies from a seed, delays of whole
// seconds; on each connection a producer and a loop of Next, whose jobs it cancels.
func loadtest(addr string, connections, jobs int) {
	random := rand.New(rand.NewSource(0))
	bodies := make([][]byte, jobs)
	for i := range bodies {
		bodies[i] = make([]byte, 1000)
		for j := range bodies[i] {
			bodies[i][j] = byte('a' + random.Intn(26))
		}
	}
	ids := make(chan int)
	go func() {
		for i := range bodies {
			ids <- i
		}
		close(ids)
	}()
	var taken atomic.Int64
	var seen sync.Map
	var all sync.WaitGroup
	began := time.Now()
	for range connections {
		c := dial(addr)
		if err := ping(c); err != nil {
			log.Fatal(err)
		}
		all.Add(2)
		go func() {
			defer all.Done()
			for i := range ids {
				id, err := put(c, strconv.Itoa(i), bodies[i], time.Duration(i%2)*time.Second)
				if err != nil || id != "" {
					log.Fatalf("put %d: %q %v", i, id, err)
				}
			}
		}()
		go func() {
			defer all.Done()
			for taken.Load() < int64(jobs) {
				id, body, err := next(c, time.Second)
				if err != nil {
					if err.Error() == timedOut {
						continue
					}
					log.Fatalf("next: %v", err)
				}
				if err := cancel(c, id); err != nil {
					log.Fatalf("cancel: %v", err)
				}
				i, err := strconv.Atoi(id)
				if err != nil || !bytes.Equal(body, bodies[i]) {
					log.Fatalf("job %q has another body", id)
				}
				if _, twice := seen.LoadOrStore(id, true); twice {
					log.Fatalf("job %q came twice", id)
				}
				taken.Add(1)
			}
		}()
	}
	all.Wait()
	fmt.Printf("%d jobs in %d ms\n", taken.Load(), time.Since(began).Milliseconds())
}

func latency(addr string, rounds int) {
	c := dial(addr)
	puts, nexts := make([]float64, rounds), make([]float64, rounds)
	for i := range rounds {
		began := time.Now()
		if _, err := put(c, strconv.Itoa(i), []byte("x"), 0); err != nil {
			log.Fatal(err)
		}
		between := time.Now()
		if _, _, err := next(c, time.Second); err != nil {
			log.Fatal(err)
		}
		puts[i] = float64(between.Sub(began).Microseconds()) / 1000
		nexts[i] = float64(time.Since(between).Microseconds()) / 1000
	}
	for name, all := range map[string][]float64{"put": puts, "next": nexts} {
		sort.Float64s(all)
		fmt.Printf("%s p50 %.3f ms p99 %.3f ms\n", name, all[rounds/2], all[rounds*99/100])
	}
}

// RPCServer answers as goyaad's does where nothing is stored; for net/rpc's own errors.
type RPCServer struct{}

func (*RPCServer) PutWithID(job RPCJob, id *string) error { return nil }
func (*RPCServer) Cancel(id string, ignore *int8) error   { return nil }
func (*RPCServer) Ping(ignore int8, reply *string) error  { *reply = "pong"; return nil }
func (*RPCServer) InspectN(n int, jobs *[]*RPCJob) error  { *jobs = []*RPCJob{}; return nil }
func (*RPCServer) Next(timeout int64, job *RPCJob) error  { return errors.New(timedOut) }

func server() {
	if err := rpc.Register(&RPCServer{}); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.SetOutput(os.Stderr)
	rpc.Accept(listener)
}

// snapshot writes jobs as goyaad's JournalPersister does: a journal of LevelDB's, a record per job,
// in it five values from one encoder.
func snapshot(file string, jobs int) {
	out, err := os.Create(file)
	if err != nil {
		log.Fatal(err)
	}
	w := journal.NewWriter(out)
	for i := range jobs {
		record, err := w.Next()
		if err != nil {
			log.Fatal(err)
		}
		e := gob.NewEncoder(record)
		body := bytes.Repeat([]byte{byte(i)}, i*37%3000)
		if i == 7 {
			body = bytes.Repeat([]byte("large "), 11000)
		}
		id := fmt.Sprintf("job %d", i)
		if i%10 == 3 {
			id = fmt.Sprintf("\x00%d", i)
		}
		for _, value := range []any{
			id, int32(i % 5), int64(1_577_836_800_000_000_000 + i*1_000_000_007),
			int64(time.Duration(i) * time.Second), body,
		} {
			if err := e.Encode(value); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	if err := out.Close(); err != nil {
		log.Fatal(err)
	}
}

// Of ticketd: sessions and tickets know one another; those within others are shown without theirs.

type ticketdSession struct {
	Name      string
	Id        string
	Src       string
	Ttl       int
	Tickets   []*ticketdTicket
	Issuances []*ticketdTicket
}

type ticketdTicket struct {
	Name         string
	ResourceName string
	Data         []byte
	Issuer       *ticketdSession
	Claimant     *ticketdSession
}

type ticketdResource struct {
	Name    string
	IsLock  bool
	Tickets map[string]*ticketdTicket
}

func ticketd(folder string) {
	write := func(name string, records ...any) {
		out, err := os.Create(folder + "/" + name)
		if err != nil {
			log.Fatal(err)
		}
		e := gob.NewEncoder(out)
		for _, record := range records {
			if err := e.Encode(record); err != nil {
				log.Fatal(err)
			}
		}
		if err := out.Close(); err != nil {
			log.Fatal(err)
		}
	}
	issuer := &ticketdSession{Name: "issuer", Id: "1VQdYEgVvTrYZdLCLBcCSKRgiSa", Src: "10.0.0.1:50000", Ttl: 60000}
	worker := &ticketdSession{Id: "1VQdYEgVvTrYZdLCLBcCSKRgiSb", Src: "10.0.0.2:50000", Ttl: 5}
	gone := &ticketdSession{Name: "gone", Id: "1VQdYEgVvTrYZdLCLBcCSKRgiSc"}
	free := &ticketdTicket{"free", "build", []byte("FOO"), issuer, nil}
	taken := &ticketdTicket{"taken", "build", []byte{0, 255}, issuer, worker}
	lost := &ticketdTicket{"lost", "build", nil, issuer, gone}
	orphan := &ticketdTicket{"orphan", "build", nil, gone, nil}
	lock := &ticketdTicket{"deploy", "deploy", nil, worker, worker}
	full := *issuer
	full.Issuances = []*ticketdTicket{free, taken, lost}
	holder := *worker
	holder.Tickets = []*ticketdTicket{taken}
	holder.Issuances = []*ticketdTicket{lock}
	write("sessions.gob", full, holder)
	write("resources.gob",
		ticketdResource{"build", false, map[string]*ticketdTicket{
			"free": free, "taken": taken, "lost": lost, "orphan": orphan,
		}},
		ticketdResource{"deploy", true, map[string]*ticketdTicket{"deploy": lock}},
		ticketdResource{"empty", false, nil},
	)
}

type inner struct {
	A int
	B []string
}

type everything struct {
	Bool    bool
	Int     int
	Uint    uint
	Float   float64
	Bytes   []byte
	Text    string
	Inner   inner
	Pointer *inner
	List    []inner
	Array   [3]int
	Map     map[string]int
	Maps    map[string][]inner
	When    time.Time
	Any     any
}

func values() {
	gob.Register(inner{})
	when := time.Date(2020, 1, 29, 1, 2, 3, 4, time.UTC)
	in := inner{-5, []string{"a", "", "c"}}
	all := []any{
		everything{}, everything{
			true, -129, 1 << 63, 17.25, []byte("by"), "text", in, &in, []inner{in, {}},
			[3]int{1, 0, 3}, map[string]int{"x": 1}, map[string][]inner{"y": {in}}, when, in,
		},
		everything{Any: "plain"}, everything{Any: []byte("b")},
		0, -1, uint(7), "", "s", []byte{}, 2.5, false, []string{}, map[string]int{}, in,
		map[string]*inner{"k": &in}, []time.Time{when},
	}
	for _, value := range all {
		var buffer bytes.Buffer
		if err := gob.NewEncoder(&buffer).Encode(value); err != nil {
			log.Fatal(err)
		}
		text, err := json.Marshal(value)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s\n", hex.EncodeToString(buffer.Bytes()), text)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 2 && arguments[0] == "client":
		client(arguments[1])
	case len(arguments) == 4 && arguments[0] == "loadtest":
		loadtest(arguments[1], number(arguments[2]), number(arguments[3]))
	case len(arguments) == 3 && arguments[0] == "latency":
		latency(arguments[1], number(arguments[2]))
	case len(arguments) == 1 && arguments[0] == "server":
		server()
	case len(arguments) == 3 && arguments[0] == "snapshot":
		snapshot(arguments[1], number(arguments[2]))
	case len(arguments) == 2 && arguments[0] == "ticketd":
		ticketd(arguments[1])
	case len(arguments) == 1 && arguments[0] == "values":
		values()
	default:
		log.Fatal("see the top of main.go")
	}
}
