// A client of the package `kv` in Go.
//
//	client [-addr ADDRESS] [-raw] get KEY
//	client [-addr ADDRESS] [-version N] set KEY VALUE
//	client [-addr ADDRESS] [-version N] delete KEY
//	client [-addr ADDRESS] [-version N] replicate KEY [VALUE]    as a peer of that store does; without a value, a delete
//	client [-addr ADDRESS] state
//	client [-addr ADDRESS] heartbeat | vote                      for a term that is far ahead
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	kv "kv-cluster/api"

	"google.golang.org/grpc"
)

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", "localhost:50051", "server address")
	raw := flag.Bool("raw", false, "print the value only, without a newline")
	version := flag.Int64("version", 0, "place in the caller's own order; 0 for none")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, *addr, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	store, cluster := kv.NewKeyValueClient(conn), kv.NewClusterClient(conn)
	switch key := flag.Arg(1); flag.Arg(0) {
	case "get":
		answer, err := store.Get(ctx, &kv.GetRequest{Key: key})
		check(err)
		switch {
		case !answer.Found:
			fmt.Println("(not found)")
		case *raw:
			os.Stdout.Write(answer.Value)
		default:
			fmt.Printf("%s\n", answer.Value)
		}
	case "set":
		answer, err := store.Set(ctx, &kv.SetRequest{Key: key, Value: []byte(flag.Arg(2)), Version: *version})
		check(err)
		told(answer.Ok)
	case "delete":
		answer, err := store.Delete(ctx, &kv.DeleteRequest{Key: key, Version: *version})
		check(err)
		told(answer.Ok)
	case "replicate":
		answer, err := store.Replicate(ctx, &kv.ReplicateRequest{
			Key: key, Value: []byte(flag.Arg(2)), Version: *version, IsDelete: flag.NArg() < 3,
		})
		check(err)
		told(answer.Ok)
	case "state":
		state, err := cluster.GetClusterState(ctx, &kv.GetClusterStateRequest{})
		check(err)
		for at, id := range state.NodeIds {
			fmt.Printf("%s=%s\n", id, state.Addresses[at])
		}
		fmt.Printf("leader %s, term %d\n", state.LeaderId, state.Term)
	case "heartbeat":
		answer, err := cluster.Heartbeat(ctx, &kv.HeartbeatRequest{
			NodeId: "stranger", Address: "127.0.0.1:1", Term: 1 << 40, IsLeader: true,
		})
		check(err)
		fmt.Printf("term %d, accepted %t\n", answer.Term, answer.Accepted)
	case "vote":
		answer, err := cluster.RequestVote(ctx, &kv.RequestVoteRequest{
			NodeId: "stranger", Term: 1 << 40, LastLogIndex: 1 << 40,
		})
		check(err)
		fmt.Printf("term %d, granted %t\n", answer.Term, answer.VoteGranted)
	default:
		log.Fatal("usage: client [-addr ADDRESS] [-raw] get KEY | set KEY VALUE | delete KEY")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func told(ok bool) {
	if ok {
		fmt.Println("ok")
	} else {
		fmt.Println("ignored")
	}
}
