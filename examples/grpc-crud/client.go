// A client of ringfort.v1 in Go: create, read, update and delete. ADDRESS may be several, with commas between: calls go to
// all of them in turn, and around one that is gone.
//
//	client ADDRESS create KEY VALUE     only if it is not there
//	client ADDRESS read KEY             get does the same
//	client ADDRESS update KEY VALUE     only if it is there
//	client ADDRESS delete KEY           only if it is there
//	client ADDRESS put KEY VALUE        either way
//	client ADDRESS list PREFIX
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	ringfortv1 "ringfort/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: client ADDRESS[,ADDRESS…] create|read|get|update|delete|put|list KEY [VALUE]")
	}
	verb, key, value := os.Args[2], []byte(os.Args[3]), []byte(strings.Join(os.Args[4:], " "))
	nodes := manual.NewBuilderWithScheme("ringfort")
	var state resolver.State
	for _, address := range strings.Split(os.Args[1], ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	nodes.InitialState(state)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, "ringfort:///cluster", grpc.WithInsecure(), grpc.WithBlock(), grpc.WithResolvers(nodes),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	kv := ringfortv1.NewKVClient(conn)
	present := func(present bool) *ringfortv1.Condition {
		return &ringfortv1.Condition{Must: &ringfortv1.Condition_Present{Present: present}}
	}
	switch verb {
	case "create", "update", "put":
		put := &ringfortv1.PutRequest{Key: key, Value: value}
		if verb != "put" {
			put.Condition = present(verb == "update")
		}
		answer, err := kv.Put(ctx, put)
		told(err, answer.GetNotMet())
	case "read", "get":
		answer, err := kv.Get(ctx, &ringfortv1.GetRequest{Key: key})
		if err != nil {
			log.Fatal(err)
		}
		if !answer.Found {
			log.Fatal("(not found)")
		}
		fmt.Printf("%s\n", answer.Value)
	case "delete":
		answer, err := kv.Delete(ctx, &ringfortv1.DeleteRequest{Key: key, Condition: present(true)})
		told(err, answer.GetNotMet())
	case "list":
		rows, err := kv.List(ctx, &ringfortv1.ListRequest{Prefix: key})
		if err != nil {
			log.Fatal(err)
		}
		for {
			frame, err := rows.Recv()
			if err == io.EOF {
				return
			}
			if err != nil {
				log.Fatal(err)
			}
			for _, row := range frame.Rows {
				fmt.Printf("%s = %s\n", row.Key, row.Value)
			}
		}
	default:
		log.Fatal("no such command: ", verb)
	}
}

func told(err error, notMet *ringfortv1.NotMet) {
	switch {
	case err != nil:
		log.Fatal(err)
	case notMet == nil:
		fmt.Println("OK")
	case notMet.Revision == nil:
		log.Fatal("not done: it is not there")
	default:
		log.Fatal("not done: it is there")
	}
}
