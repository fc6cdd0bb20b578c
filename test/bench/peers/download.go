package main

import (
	"context"
	"crypto/sha256"
	"io"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/test/bench/origin"
)

const part = 8 << 20

// fetch downloads an object to a file with one of the SDK's two managers, makes it
// durable, and then reads it once more for its SHA-256: both write in any order.
func fetch(ctx context.Context, with, url, path string, size int64, connections int) error {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"), config.WithBaseEndpoint(url))
	if err != nil {
		return err
	}
	api := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle, o.DisableLogOutputChecksumValidationSkipped = true, true
	})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	bucket, key := aws.String("b"), aws.String(origin.Key(size))
	switch with {
	case "manager":
		d := manager.NewDownloader(api, func(d *manager.Downloader) { //nolint:staticcheck // deprecated, and used
			d.PartSize, d.Concurrency = part, connections
		})
		_, err = d.Download(ctx, f, &s3.GetObjectInput{Bucket: bucket, Key: key}) //nolint:staticcheck // see above
	case "transfermanager":
		d := transfermanager.New(api, func(o *transfermanager.Options) {
			o.PartSizeBytes, o.Concurrency, o.GetObjectType = part, connections, types.GetObjectRanges
		})
		_, err = d.DownloadObject(ctx, &transfermanager.DownloadObjectInput{Bucket: bucket, Key: key, WriterAt: f})
	default:
		err = errUsage
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.CopyBuffer(sha256.New(), struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}
