// The shell of kvstore.v1 in Go: `client PORT`. Beside put, get and list it knows `replicate KEY VALUE`, which a peer of that
// store would call.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	kvstorepb "grpc-kvstore/proto"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: client PORT")
	}
	dialling, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	conn, err := grpc.DialContext(dialling, "localhost:"+os.Args[1], grpc.WithInsecure(), grpc.WithBlock())
	cancel()
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	store, peer := kvstorepb.NewKVStoreClient(conn), kvstorepb.NewReplicatorClient(conn)
	lines := bufio.NewScanner(os.Stdin)
	for fmt.Print("> "); lines.Scan(); fmt.Print("> ") {
		words := strings.SplitN(strings.TrimSpace(lines.Text()), " ", 3)
		if words[0] == "exit" || words[0] == "quit" {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := obey(ctx, store, peer, words); err != nil {
			fmt.Println("error:", err)
		}
		cancel()
	}
	fmt.Println()
}

func obey(ctx context.Context, store kvstorepb.KVStoreClient, peer kvstorepb.ReplicatorClient, words []string) error {
	switch {
	case words[0] == "put" && len(words) == 3:
		ack, err := store.Put(ctx, &kvstorepb.KeyValue{Key: words[1], Value: words[2]})
		return acknowledged(ack, err)
	case words[0] == "put":
		fmt.Println("Usage: put <key> <value>")
	case words[0] == "replicate" && len(words) == 3:
		ack, err := peer.Replicate(ctx, &kvstorepb.KeyValue{Key: words[1], Value: words[2]})
		return acknowledged(ack, err)
	case words[0] == "get" && len(words) == 2:
		value, err := store.Get(ctx, &kvstorepb.Key{Key: words[1]})
		if err != nil {
			return err
		}
		fmt.Println(words[1], "=", value.Value)
	case words[0] == "get":
		fmt.Println("Usage: get <key>")
	case words[0] == "list":
		rows, err := store.List(ctx, &emptypb.Empty{})
		if err != nil {
			return err
		}
		for {
			row, err := rows.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Println(row.Key, "=", row.Value)
		}
	default:
		fmt.Println("Commands: put/get/list/exit")
	}
	return nil
}

func acknowledged(ack *kvstorepb.Ack, err error) error {
	if err != nil {
		return err
	}
	if !ack.Ok {
		return fmt.Errorf("not stored: %s", ack.Message)
	}
	fmt.Println(ack.Message)
	return nil
}
