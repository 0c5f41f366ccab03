// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// fault is a call that goes wrong: the method (a SOAP name), on this VM or any, after Skip calls, Times times.
type fault struct {
	Method string `json:"method"`
	VM     string `json:"vm"`
	Fault  string `json:"fault"`  // NotAuthenticated, NoPermission, ManagedObjectNotFound, InvalidLogin, ToolsUnavailable, custom text
	Task   bool   `json:"task"`   // the call is taken, its task fails
	Status int    `json:"status"` // answer with this HTTP status and an HTML page instead
	Drop   bool   `json:"drop"`   // end the connection without an answer
	Half   bool   `json:"half"`   // answer only half
	Hold   int    `json:"hold"`   // the call is taken, but only after so many milliseconds, or when there is no fault any more
	// RetrievePropertiesEx answers this property of the VM with the fault
	Withhold string `json:"withhold"`
	Times    int    `json:"times"`
	Skip     int    `json:"skip"`
}

// delays are milliseconds: of every call, of a method's calls, of a task ("PowerOff", "ReconfigVm").
type delays struct {
	Calls   int            `json:"calls"`
	Methods map[string]int `json:"methods"`
	Tasks   map[string]int `json:"tasks"`
}

type rules struct {
	page     int // objects that one answer to a read holds; 0: all
	mutex    sync.Mutex
	calls    map[string]int
	faults   []*fault
	letGo    int // how often the tests have taken all faults away
	delays   delays
	sessions map[string]bool
}

func newRules() *rules { return &rules{calls: map[string]int{}, sessions: map[string]bool{}} }

var beforeLogin = map[string]bool{"RetrieveServiceContent": true, "Login": true, "Logout": true}

// handler is asked before each call: it counts, delays, fails, and answers with the object that serves the call.
func (r *rules) handler(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	name := method.Name
	if ctx.Session != nil {
		r.mutex.Lock()
		r.sessions[ctx.Session.Key] = true
		r.mutex.Unlock()
	}
	r.count(name)
	if ctx.Session == nil && !beforeLogin[name] { // the simulator would let some of them pass
		return nil, faultOf("NotAuthenticated", method.This)
	}
	target := ctx.Map.Get(method.This)
	about := target
	if field, ok := method.Body.(*types.SetField); ok { // one object has this method for all
		about = ctx.Map.Get(field.Entity)
		if about == nil { // the simulator would never answer again
			return nil, &types.ManagedObjectNotFound{Obj: field.Entity}
		}
	}
	if held := r.strike(name, nameOf(ctx, about), func(f *fault) bool { return f.Hold > 0 }); held != nil {
		r.hold(time.Duration(held.Hold) * time.Millisecond)
	}
	struck := r.strike(name, nameOf(ctx, about), func(f *fault) bool {
		return f.Status == 0 && !f.Drop && !f.Half && f.Hold == 0 && f.Withhold == ""
	})
	if struck != nil && !struck.Task {
		return nil, faultOf(struck.Fault, method.This)
	}
	serves := better(ctx, target, name, struck)
	if collector := r.withheld(ctx, target, name); collector != nil {
		serves = collector
	}
	if serves != nil {
		method.This.Value += "#" // else the session's own registry has the last word
	}
	return serves, nil
}

// count counts a call and lets it wait.
func (r *rules) count(name string) {
	r.mutex.Lock()
	r.calls[name]++
	pause := r.delays.Calls + r.delays.Methods[name]
	r.mutex.Unlock()
	time.Sleep(time.Duration(pause) * time.Millisecond)
}

// hold lets a call wait until its time is over, or the tests have let go of all.
func (r *rules) hold(most time.Duration) {
	begun := r.timesLetGo()
	for end := time.Now().Add(most); time.Now().Before(end) && r.timesLetGo() == begun; {
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *rules) timesLetGo() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.letGo
}

const anyMachine = "*"

// strike takes the first fault that fits, if there is one.
func (r *rules) strike(method, machine string, kind func(*fault) bool) *fault {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, candidate := range r.faults {
		if candidate.Method != method || (candidate.VM != "" && machine != anyMachine && candidate.VM != machine) || !kind(candidate) {
			continue
		}
		if candidate.Skip > 0 {
			candidate.Skip--
			continue
		}
		if candidate.Times > 0 {
			candidate.Times--
			return candidate
		}
	}
	return nil
}

// overHTTP has the faults that no SOAP answer can show: HTML pages, error statuses and dropped connections.
// It also answers for a VM without snapshots, of which the simulator says that it has no property of that name.
func (r *rules) overHTTP(next http.Handler, registry *simulator.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		name, body := methodOf(request)
		if name == "Fetch" && fetchesNothing(registry, body) {
			r.count(name)
			_, _ = w.Write([]byte(nothing))
			return
		}
		struck := r.strike(name, "", func(f *fault) bool { return f.Status != 0 || f.Drop || f.Half })
		switch {
		case name == "GET /nfc" && (struck == nil || struck.Half):
			r.count(name)
			serveLease(w, request, struck != nil)
		case name == "GET /guestFile" && struck == nil:
			r.count(name)
			serveGuest(w, request)
		case strings.HasPrefix(request.URL.Path, api) && struck == nil:
			r.count(name)
			serveRest(w, request, next)
		case struck == nil:
			next.ServeHTTP(w, request)
		case struck.Half:
			whole := httptest.NewRecorder()
			next.ServeHTTP(whole, request)
			_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
		case struck.Drop:
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(struck.Status)
			_, _ = w.Write([]byte("<html><body>The proxy has a bad day.</body></html>"))
		}
	})
}

var bodyElement = regexp.MustCompile(`:Body[^>]*>\s*<(?:\w+:)?(\w+)`)

var (
	fetched = regexp.MustCompile(`<_this[^>]*>(vm-\d+|\d+)</_this><prop[^>]*>snapshot</prop>`)
	nothing = `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope ` +
		`xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>` +
		`<FetchResponse xmlns="urn:vim25"></FetchResponse></soapenv:Body></soapenv:Envelope>`
)

func fetchesNothing(registry *simulator.Registry, body []byte) bool {
	found := fetched.FindSubmatch(body)
	if found == nil {
		return false
	}
	reference := types.ManagedObjectReference{Type: "VirtualMachine", Value: string(found[1])}
	machine, ok := registry.Get(reference).(*simulator.VirtualMachine)
	return ok && machine.Snapshot == nil
}

// methodOf tells the SOAP method that a request calls, or "GET /path" for one that is no SOAP call; and its body.
func methodOf(request *http.Request) (string, []byte) {
	if strings.HasPrefix(request.URL.Path, "/folder/") {
		return request.Method + " /folder", nil
	}
	if strings.HasPrefix(request.URL.Path, api) {
		return restName(request), nil
	}
	if request.URL.Path == "/guestFile" {
		return request.Method + " /guestFile", nil
	}
	if strings.HasPrefix(request.URL.Path, "/nfc/") {
		return request.Method + " /nfc", nil
	}
	if request.Method != http.MethodPost || !strings.HasPrefix(request.URL.Path, "/sdk") {
		return request.Method + " " + request.URL.Path, nil
	}
	body, _ := io.ReadAll(request.Body)
	request.Body = io.NopCloser(bytes.NewReader(body))
	if found := bodyElement.FindSubmatch(body); found != nil {
		return string(found[1]), body
	}
	return "", body
}

func nameOf(ctx *simulator.Context, target mo.Reference) string {
	switch object := target.(type) {
	case *simulator.VirtualMachine:
		return object.Name
	case *simulator.VirtualMachineSnapshot:
		if machine, ok := ctx.Map.Get(object.Vm).(*simulator.VirtualMachine); ok {
			return machine.Name
		}
	}
	return ""
}

func faultOf(name string, object types.ManagedObjectReference) types.BaseMethodFault {
	denied := types.NoPermission{Object: &object, PrivilegeId: "VirtualMachine.Config.EditDevice"}
	switch name {
	case "NotAuthenticated":
		return &types.NotAuthenticated{NoPermission: denied}
	case "NoPermission":
		return &denied
	case "ManagedObjectNotFound":
		return &types.ManagedObjectNotFound{Obj: object}
	case "InvalidLogin":
		return new(types.InvalidLogin)
	case "ToolsUnavailable":
		return new(types.ToolsUnavailable)
	}
	return &types.SystemError{Reason: name}
}

// controls is the tests' own way in, on loopback only.
func controls(r *rules, service *simulator.Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		_ = json.NewEncoder(w).Encode(r.calls)
	})
	mux.HandleFunc("DELETE /calls", func(http.ResponseWriter, *http.Request) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.calls = map[string]int{}
	})
	mux.HandleFunc("PUT /faults", func(w http.ResponseWriter, request *http.Request) {
		var wanted []*fault
		if given(w, request, &wanted) {
			r.mutex.Lock()
			defer r.mutex.Unlock()
			r.faults = wanted
			if len(wanted) == 0 {
				r.letGo++
			}
		}
	})
	mux.HandleFunc("PUT /delays", func(w http.ResponseWriter, request *http.Request) {
		var wanted delays
		if given(w, request, &wanted) {
			tasks := map[string]int{"LockHandoff": 0}
			for name, milliseconds := range wanted.Tasks {
				tasks[name] = milliseconds
			}
			simulator.TaskDelay = simulator.DelayConfig{MethodDelay: tasks}
			r.mutex.Lock()
			defer r.mutex.Unlock()
			r.delays = wanted
		}
	})
	mux.HandleFunc("PUT /page", func(w http.ResponseWriter, request *http.Request) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		given(w, request, &r.page)
	})
	mux.HandleFunc("DELETE /sessions", func(http.ResponseWriter, *http.Request) { r.expire(service) })
	return mux
}

func given(w http.ResponseWriter, request *http.Request, into any) bool {
	if err := json.NewDecoder(request.Body).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// expire ends every session that was seen, as an idle time-out or an administrator would.
func (r *rules) expire(service *simulator.Service) {
	r.mutex.Lock()
	keys := r.sessions
	r.sessions = map[string]bool{}
	r.mutex.Unlock()
	manager := service.Context.Map.SessionManager()
	for key := range keys {
		request := &methods.TerminateSessionBody{
			Req: &types.TerminateSession{This: manager.Self, SessionId: []string{key}},
		}
		_ = service.RoundTrip(context.Background(), request, &methods.TerminateSessionBody{})
	}
}
