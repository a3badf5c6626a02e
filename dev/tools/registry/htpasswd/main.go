// Command htpasswd reads a password from standard input and prints the htpasswd line of the user named as its only
// argument. The registry accepts nothing but bcrypt there, which Python's standard library does not have.
package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/bcrypt"
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: htpasswd USER <PASSWORD-FILE")
	}
	password, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	hash, err := bcrypt.GenerateFromPassword(password, bcrypt.MinCost)
	if err != nil {
		fail(err)
	}
	fmt.Printf("%s:%s\n", os.Args[1], hash)
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, "htpasswd:", reason)
	os.Exit(1)
}
