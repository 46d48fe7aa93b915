// A client of the package `proto` in Go.
//
//	client ADDRESS                     puts hello → world, and gets it
//	client ADDRESS put KEY VALUE
//	client ADDRESS get KEY
//	client ADDRESS join ID RAFT GRPC
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	pb "raft-kv/proto"

	"google.golang.org/grpc"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: client ADDRESS [put KEY VALUE | get KEY | join ID RAFT GRPC]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, os.Args[1], grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	words := os.Args[2:]
	if len(words) == 0 {
		put(ctx, kv, "hello", "world")
		get(ctx, kv, "hello")
		return
	}
	switch words[0] {
	case "put":
		put(ctx, kv, words[1], words[2])
	case "get":
		get(ctx, kv, words[1])
	case "join":
		if _, err := kv.Join(ctx, &pb.JoinRequest{NodeId: words[1], RaftAddress: words[2], GrpcAddress: words[3]}); err != nil {
			log.Fatal(err)
		}
		fmt.Println("Joined")
	default:
		log.Fatal("no such command: ", words[0])
	}
}

func put(ctx context.Context, kv pb.KVClient, key, value string) {
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: value}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("Put", key, "=", value)
}

func get(ctx context.Context, kv pb.KVClient, key string) {
	answer, err := kv.Get(ctx, &pb.GetRequest{Key: key})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Get", key, "=", answer.Value)
}
