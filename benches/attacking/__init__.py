"""What a node is attacked with (`kinds`), and the frames that it takes (`http2`)."""
