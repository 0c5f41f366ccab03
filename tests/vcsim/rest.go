// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// The tagging calls of the Automation API as vCenter has them since 7.0 U2 (/api), by way of the simulator's older ones
// (/rest), after https://developer.broadcom.com/xapis/vsphere-automation-api/latest/cis/tagging/.

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
)

const api = "/api/"

// restName is a call as tests name it: without the ids in its path.
func restName(request *http.Request) string {
	parts := strings.Split(request.URL.Path, "/")
	return request.Method + " " + strings.Join(parts[:min(len(parts), 5)], "/")
}

func serveRest(w http.ResponseWriter, request *http.Request, next http.Handler) {
	path := strings.TrimPrefix(request.URL.Path, api)
	if path != "session" && !strings.HasPrefix(path, "cis/tagging/") {
		http.NotFound(w, request)
		return
	}
	parts := strings.SplitN("cis/"+strings.TrimPrefix(path, "cis/"), "/", 4)
	if len(parts) == 4 {
		parts[3] = "id:" + parts[3]
	}
	older := request.Clone(request.Context())
	older.URL = &url.URL{Path: "/rest/com/vmware/" + strings.Join(parts, "/")}
	if action := request.URL.Query().Get("action"); action != "" {
		older.URL.RawQuery = url.Values{"~action": {action}}.Encode()
	}
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, older)
	status := answer.Code
	if request.Method == http.MethodPost && path == "session" && status == http.StatusOK {
		status = http.StatusCreated
	}
	var told struct{ Value json.RawMessage }
	_ = json.NewDecoder(bytes.NewReader(answer.Body.Bytes())).Decode(&told)
	if string(told.Value) == "null" { // the simulator's empty list
		told.Value = json.RawMessage("[]")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(told.Value)
}
