// Sends the requests of a plan with Go's HTTP client, and prints the results; arguments, plan and output are those
// of client.py, with "h1" or "h2" for the library.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func post(client *http.Client, url, key string, size, major int) (string, error) {
	request, err := http.NewRequest("POST", url, bytes.NewReader(bytes.Repeat([]byte("x"), size)))
	if err != nil {
		return "", err
	}
	request.Header.Set("X-API-Key", key)
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != major {
		return "", fmt.Errorf("it spoke %s", answer.Proto)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	var problem struct{ Status int }
	if err := json.Unmarshal(text, &problem); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d", answer.StatusCode, problem.Status), nil
}

func main() {
	library, base, caFile := os.Args[1], os.Args[2], os.Args[3]
	tries, _ := strconv.Atoi(os.Args[4])
	ca, err := os.ReadFile(caFile)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: library == "h2",
	}
	major := 2
	if library == "h1" {
		major = 1
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	plan := bufio.NewScanner(os.Stdin)
	for plan.Scan() {
		fields := strings.Fields(plan.Text())
		size, _ := strconv.Atoi(fields[2])
		for count := 0; count < tries; count++ {
			line, err := post(client, base+fields[0], fields[1], size, major)
			if err != nil {
				line = "- " + strings.ReplaceAll(err.Error(), "\n", " ")
			}
			fmt.Println(line)
		}
	}
}
