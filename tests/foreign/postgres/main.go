// A program as users of go-session-lock write them: runners over database/sql, with an ordinary
// Postgres driver, which know nothing of Coterie.
//
// Each runner starts a session, gets work, does it, finishes it, and bumps its session meanwhile; on
// SQLSTATE SL001 it starts another one; on any other error it takes the next database, as a finder
// that is asked anew at every round would, and tries again. It ends when so many tasks are done and
// it is given no more.
//
// What is done is told as JSON lines: {"runner", "session", "task", "began_ns", "ended_ns"}.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

const sessionNotFound = "SL001"

type line struct {
	Runner  int    `json:"runner"`
	Session int64  `json:"session"`
	Task    int64  `json:"task"`
	BeganNS int64  `json:"began_ns"`
	EndedNS int64  `json:"ended_ns"`
	Data    string `json:"data"`
}

// program is what all runners share.
type program struct {
	driver    string
	databases []string
	perGet    int64
	work      time.Duration
	left      atomic.Int64
	began     time.Time
	out       sync.Mutex
	done      map[int64]bool
}

func (p *program) tell(l line) {
	p.out.Lock()
	defer p.out.Unlock()
	text, _ := json.Marshal(l)
	fmt.Println(string(text))
	if !p.done[l.Task] {
		p.done[l.Task] = true
		p.left.Add(-1)
	}
}

// codeOf is the SQLSTATE of an error, as go-glitch's postgres.ToDataError takes it from lib/pq.
func codeOf(err error) string {
	var ofPq *pq.Error
	var ofPgx *pgconn.PgError
	switch {
	case errors.As(err, &ofPq):
		return string(ofPq.Code)
	case errors.As(err, &ofPgx):
		return ofPgx.Code
	}
	return ""
}

type runner struct {
	*program
	number  int
	place   int
	db      *sql.DB
	session int64
	idle    bool // all it was given is finished
}

// find is the finder: the database of this round, another one after a failure.
func (r *runner) find() *sql.DB {
	if r.db == nil {
		db, err := sql.Open(r.driver, r.databases[r.place%len(r.databases)])
		if err != nil {
			panic(err)
		}
		db.SetMaxOpenConns(2)
		r.db = db
	}
	return r.db
}

func (r *runner) failed(what string, err error) {
	fmt.Fprintf(os.Stderr, "runner %d: %s: %v (%s)\n", r.number, what, err, codeOf(err))
	if codeOf(err) == sessionNotFound {
		r.session = 0
		return
	}
	r.db.Close()
	r.db = nil
	r.place++
	time.Sleep(20 * time.Millisecond)
}

func (r *runner) run(ctx context.Context) {
	for (r.left.Load() > 0 || !r.idle) && ctx.Err() == nil {
		if err := r.round(ctx); err != nil {
			r.failed("round", err)
		}
	}
	if r.session != 0 {
		if _, err := r.find().ExecContext(ctx, "SELECT end_session($1)", r.session); err != nil {
			r.failed("end", err)
		}
	}
	if r.db != nil {
		r.db.Close()
	}
}

// round gets work until there is none, as the Runner does at each tick.
func (r *runner) round(ctx context.Context) error {
	db := r.find()
	if r.session == 0 {
		if err := db.QueryRowContext(ctx, "SELECT start_session()").Scan(&r.session); err != nil {
			return err
		}
	}
	if _, err := db.ExecContext(ctx, "SELECT bump_session($1)", r.session); err != nil {
		return err
	}
	rows, err := db.QueryContext(ctx, "SELECT * FROM get_work($1, $2)", r.session, r.perGet)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		l := line{Runner: r.number, Session: r.session, BeganNS: time.Since(r.began).Nanoseconds()}
		var data sql.NullString
		if err := rows.Scan(&l.Task, &data); err != nil {
			return err
		}
		time.Sleep(r.work)
		l.Data, l.EndedNS = data.String, time.Since(r.began).Nanoseconds()
		r.tell(l)
		ids = append(ids, l.Task)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	// The Runner finishes an empty list too.
	if _, err = db.ExecContext(ctx, "SELECT finish_tasks($1)", r.array(ids)); err != nil {
		return err
	}
	r.idle = len(ids) == 0
	if r.idle {
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// array is the argument as each driver's users write it: lib/pq wants its own wrapper.
func (r *runner) array(ids []int64) any {
	if r.driver == "postgres" {
		return pq.Array(ids)
	}
	return ids
}

func main() {
	driver := flag.String("driver", "postgres", "postgres (lib/pq) or pgx")
	databases := flag.String("databases", "", "connection strings, separated by commas")
	runners := flag.Int("runners", 3, "how many")
	tasks := flag.Int64("tasks", 0, "end when so many are done")
	perGet := flag.Int64("per-get", 10, "tasks per session")
	work := flag.Duration("work", time.Millisecond, "how long a task takes")
	limit := flag.Duration("limit", time.Minute, "give up after this long")
	flag.Parse()

	p := &program{
		driver: *driver, databases: strings.Split(*databases, ","), perGet: *perGet, work: *work,
		began: time.Now(), done: map[int64]bool{},
	}
	p.left.Store(*tasks)
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	var all sync.WaitGroup
	for number := range *runners {
		all.Add(1)
		go func() {
			defer all.Done()
			(&runner{program: p, number: number, place: number}).run(ctx)
		}()
	}
	all.Wait()
	if p.left.Load() > 0 {
		fmt.Fprintf(os.Stderr, "%d tasks are left\n", p.left.Load())
		os.Exit(1)
	}
}
