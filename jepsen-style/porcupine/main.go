// Command porcupine answers, for each history on its standard input, whether it is linearizable,
// by the checker of github.com/anishathalye/porcupine.
//
// RULE: the models say the same as those of jepsen/models.py in other words, and are written from the
// same sentences, not from that code; the search is not ours. Where the two answers differ one of
// the two checkers is wrong.
//
// A line of input is a history, a line of output its answer:
//
//	{"id": 7, "model": "lock", "operations": [{"process": 0, "f": "acquire",
//	    "value": {"session": "a"}, "result": {"token": 3}, "open": false, "call": 0, "return": 4}]}
//	{"id": 7, "legal": true}
//
// An open operation may take effect at any time after its call or never: its return is after
// everything, and its step may also do nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"sort"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Process int             `json:"process"`
	F       string          `json:"f"`
	Value   json.RawMessage `json:"value"`
	Result  json.RawMessage `json:"result"`
	Open    bool            `json:"open"`
	Call    int64           `json:"call"`
	Return  int64           `json:"return"`
}

type history struct {
	ID         int         `json:"id"`
	Model      string      `json:"model"`
	Operations []operation `json:"operations"`
}

type answer struct {
	ID    int  `json:"id"`
	Legal bool `json:"legal"`
}

// step says into which states an operation may lead; none: its answer cannot be.
type step func(state any, o *operation) []any

func model(initial any, next step) porcupine.Model {
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{initial} },
		Step: func(state, input, _ any) []any {
			o := input.(*operation)
			after := next(state, o)
			if o.Open {
				after = append(after, state)
			}
			return after
		},
		Equal: reflect.DeepEqual,
	}
	return nondeterministic.ToModel()
}

func read[T any](raw json.RawMessage) T {
	var value T
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &value); err != nil {
			panic(err)
		}
	}
	return value
}

// A register holds a number; nothing is written as -1.

func stepRegister(state any, o *operation) []any {
	now := state.(int)
	switch o.F {
	case "write":
		return []any{read[int](o.Value)}
	case "cas":
		pair := read[[2]int](o.Value)
		after := now
		if now == pair[0] {
			after = pair[1]
		}
		if !o.Open && read[bool](o.Result) != (now == pair[0]) {
			return nil
		}
		return []any{after}
	default:
		if !o.Open && read[int](o.Result) != now {
			return nil
		}
		return []any{now}
	}
}

// A lock holds grants, in the order of session; a token that nobody heard of is 0.

type grant struct {
	Session string
	Token   int
	Shared  bool
}

type lockState struct {
	Grants []grant
	Last   int
	Gone   []string
}

type lockValue struct {
	Session string `json:"session"`
	Mode    string `json:"mode"`
	Token   int    `json:"token"`
}

type lockResult struct {
	Code         string      `json:"code"`
	Token        int         `json:"token"`
	HolderToken  *int        `json:"holder_token"`
	Valid        bool        `json:"valid"`
	CurrentToken *int        `json:"current_token"`
	Holders      []lockValue `json:"holders"`
}

func (s lockState) of(session string) *grant {
	for at := range s.Grants {
		if s.Grants[at].Session == session {
			return &s.Grants[at]
		}
	}
	return nil
}

func (s lockState) has(token int) bool {
	for _, g := range s.Grants {
		if g.Token == token {
			return true
		}
	}
	return false
}

func (s lockState) without(session string) lockState {
	kept := []grant{}
	for _, g := range s.Grants {
		if g.Session != session {
			kept = append(kept, g)
		}
	}
	return lockState{kept, s.Last, s.Gone}
}

// Whoever has ended for sure never gets anything again.
func (s lockState) ended(session string, open bool) lockState {
	after := s.without(session)
	if !open && !slices.Contains(s.Gone, session) {
		after.Gone = slices.Sorted(slices.Values(append(slices.Clone(s.Gone), session)))
	}
	return after
}

func (s lockState) with(g grant) lockState {
	after := s.without(g.Session)
	after.Grants = append(after.Grants, g)
	sort.Slice(after.Grants, func(a, b int) bool {
		return after.Grants[a].Session < after.Grants[b].Session
	})
	after.Last = max(s.Last, g.Token)
	return after
}

func stepLock(state any, o *operation) []any {
	now := state.(lockState)
	value, result := read[lockValue](o.Value), read[lockResult](o.Result)
	switch o.F {
	case "acquire":
		return acquire(now, value, result, o.Open)
	case "release":
		return release(now, value, result, o.Open)
	case "end":
		return []any{now.ended(value.Session, o.Open)}
	case "check":
		if o.Open || check(now, value, result) {
			return []any{now}
		}
		return nil
	default:
		if o.Open {
			return []any{now}
		}
		return look(now, result)
	}
}

func acquire(now lockState, value lockValue, result lockResult, open bool) []any {
	shared := value.Mode == "shared"
	if result.Code != "" {
		if result.HolderToken == nil || now.has(*result.HolderToken) || now.has(0) {
			return []any{now}
		}
		return nil
	}
	if slices.Contains(now.Gone, value.Session) {
		return nil
	}
	own := now.of(value.Session)
	if own != nil && (shared || !own.Shared) {
		switch {
		case open || result.Token == own.Token:
			return []any{now}
		case own.Token == 0 && !now.has(result.Token):
			return []any{now.with(grant{own.Session, result.Token, own.Shared})}
		}
		return nil
	}
	for _, g := range now.Grants {
		if g.Session != value.Session && !(shared && g.Shared) {
			return nil
		}
	}
	if !open && result.Token <= now.Last {
		return nil
	}
	return []any{now.with(grant{value.Session, result.Token, shared})}
}

func release(now lockState, value lockValue, result lockResult, open bool) []any {
	own := now.of(value.Session)
	if result.Code != "" {
		if own == nil || own.Token != value.Token {
			return []any{now}
		}
		return nil
	}
	if own == nil || (own.Token != value.Token && own.Token != 0) {
		if open {
			return []any{now}
		}
		return nil
	}
	return []any{now.without(value.Session)}
}

func check(now lockState, value lockValue, result lockResult) bool {
	if now.has(0) {
		return result.Valid || !now.has(value.Token)
	}
	newest := 0
	for _, g := range now.Grants {
		newest = max(newest, g.Token)
	}
	told := 0
	if result.CurrentToken != nil {
		told = *result.CurrentToken
	}
	return result.Valid == now.has(value.Token) && told == newest
}

func look(now lockState, result lockResult) []any {
	if len(result.Holders) != len(now.Grants) {
		return nil
	}
	after := now
	for _, holder := range result.Holders {
		g := now.of(holder.Session)
		if g == nil || g.Shared != (holder.Mode == "shared") {
			return nil
		}
		if g.Token == 0 {
			after = after.with(grant{g.Session, holder.Token, g.Shared})
		} else if g.Token != holder.Token {
			return nil
		}
	}
	return []any{after}
}

func main() {
	models := map[string]porcupine.Model{
		"register": model(-1, stepRegister),
		"lock":     model(lockState{Grants: []grant{}}, stepLock),
	}
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := bufio.NewWriter(os.Stdout)
	defer output.Flush()
	decoder, encoder := json.NewDecoder(input), json.NewEncoder(output)
	for decoder.More() {
		var asked history
		if err := decoder.Decode(&asked); err != nil {
			fmt.Fprintln(os.Stderr, "not a history:", err)
			os.Exit(65)
		}
		wanted, known := models[asked.Model]
		if !known {
			fmt.Fprintf(os.Stderr, "no model %q\n", asked.Model)
			os.Exit(65)
		}
		operations := make([]porcupine.Operation, len(asked.Operations))
		for at := range asked.Operations {
			o := &asked.Operations[at]
			if o.Open {
				o.Return = math.MaxInt64
				o.Result = nil
			}
			// Porcupine wants calls and returns of one client in turn; an open one never returns.
			operations[at] = porcupine.Operation{ClientId: at, Input: o, Call: o.Call, Return: o.Return}
		}
		legal := porcupine.CheckOperations(wanted, operations)
		if err := encoder.Encode(answer{asked.ID, legal}); err != nil {
			os.Exit(74)
		}
	}
}
