// Clients of the disk register, in Go: the text protocol, and Store, Retrieve, GetFamily and Join over gRPC.
//
//	client ADDRESS text                  lines from stdin, an answer to each before the next is sent
//	client ADDRESS pipe                  the same, but all are sent without waiting
//	client ADDRESS store ID TEXT         through family.FamilyService
//	client ADDRESS retrieve ID
//	client ADDRESS storage-store ID TEXT through family.StorageService
//	client ADDRESS storage-retrieve ID
//	client ADDRESS family                who is there
//	client ADDRESS join HOST PORT        the node that waits there becomes a member; who is there then
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"disk-register/proto/family"

	"google.golang.org/grpc"
)

const timeout = 15 * time.Second

// What both services have.
type storage interface {
	Store(context.Context, *family.StoredMessage, ...grpc.CallOption) (*family.StoreResult, error)
	Retrieve(context.Context, *family.MessageId, ...grpc.CallOption) (*family.StoredMessage, error)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: client ADDRESS text | pipe | store ID TEXT | retrieve ID | family | join HOST PORT")
	}
	address, verb, words := os.Args[1], os.Args[2], os.Args[3:]
	if verb == "text" || verb == "pipe" {
		text(address, verb == "pipe")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := grpc.DialContext(ctx, address, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	everything := family.NewFamilyServiceClient(conn)
	var messages storage = everything
	if strings.HasPrefix(verb, "storage-") {
		messages = family.NewStorageServiceClient(conn)
	}
	switch strings.TrimPrefix(verb, "storage-") {
	case "store":
		result, err := messages.Store(ctx, &family.StoredMessage{Id: number(words[0]), Text: words[1]})
		if err != nil {
			log.Fatal(err)
		}
		if !result.Success {
			log.Fatal("ERROR ", result.Error)
		}
		fmt.Println("OK")
	case "retrieve":
		message, err := messages.Retrieve(ctx, &family.MessageId{Id: number(words[0])})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d: %s\n", message.Id, message.Text)
	case "family":
		view, err := everything.GetFamily(ctx, &family.Empty{})
		if err != nil {
			log.Fatal(err)
		}
		show(view)
	case "join":
		view, err := everything.Join(ctx, &family.NodeInfo{Host: words[0], Port: number(words[1])})
		if err != nil {
			log.Fatal(err)
		}
		show(view)
	default:
		log.Fatal("no such command: ", verb)
	}
}

func show(view *family.FamilyView) {
	for _, member := range view.Members {
		fmt.Printf("%s:%d\n", member.Host, member.Port)
	}
}

func number(word string) int32 {
	id, err := strconv.ParseInt(word, 10, 32)
	if err != nil {
		log.Fatal(err)
	}
	return int32(id)
}

func text(address string, pipelined bool) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	lines, answers, asked := bufio.NewReader(os.Stdin), bufio.NewReader(conn), make(chan struct{}, 1<<20)
	answer := func() {
		conn.SetReadDeadline(time.Now().Add(timeout))
		line, err := answers.ReadString('\n')
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(line)
	}
	send := func() bool {
		line, err := lines.ReadString('\n')
		if line == "" && err != nil {
			return false
		}
		conn.SetWriteDeadline(time.Now().Add(timeout))
		if _, err := fmt.Fprintf(conn, "%s\n", strings.TrimRight(line, "\r\n")); err != nil {
			log.Fatal(err)
		}
		return true
	}
	if !pipelined {
		for send() {
			answer()
		}
		return
	}
	go func() {
		for send() {
			asked <- struct{}{}
		}
		close(asked)
	}()
	for range asked {
		answer()
	}
}
