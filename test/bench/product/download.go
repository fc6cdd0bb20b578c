package main

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"imagemanager.internal/internal/download"
	"imagemanager.internal/test/bench/origin"
)

// fetch downloads an object of so many bytes, count times at once. Without a number of
// connections it takes the daemon's.
func fetch(ctx context.Context, url, dir string, size int64, connections, count int) error {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithBaseEndpoint(url))
	if err != nil {
		return err
	}
	api := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	d, err := download.New(api, download.Config{Dir: dir, Connections: connections})
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	for i := range count {
		all.Go(func() error {
			_, err := d.Fetch(ctx, fmt.Sprintf("%d.tar", i), download.Object{
				Bucket: "b", Key: origin.Key(size), ETag: origin.ETag, Size: size,
			}, nil)
			return err
		})
	}
	return all.Wait()
}
