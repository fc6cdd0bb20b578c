package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/middleware"

	"imagemanager.internal/internal/awserr"
	"imagemanager.internal/internal/awstrace"
	"imagemanager.internal/internal/plainbody"
)

// clients makes the AWS clients, with the options. A custom endpoint of S3, wherever it
// was set, is addressed path-style: virtual hosts of localhost do not resolve.
func (s *system) clients(ctx context.Context, options ...func(*middleware.Stack) error) (*s3.Client, *sqs.Client,
	error,
) {
	web := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = 32
		t.ResponseHeaderTimeout = s.cfg.Wait + 15*time.Second
	})
	ac, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(s.cfg.region()), awsconfig.WithHTTPClient(web))
	if err != nil { // of its own variables and files; nothing was called
		return nil, nil, &usageError{fmt.Errorf("AWS configuration: %w", err)}
	}
	ac.HTTPClient = plainbody.Client{Doer: ac.HTTPClient}
	ac.Credentials = credentials{ac.Credentials}
	ac.APIOptions = append(ac.APIOptions, options...)
	s3c := s3.NewFromConfig(ac, func(o *s3.Options) {
		if e := s.cfg.endpointS3(); e != "" {
			o.BaseEndpoint = &e
		}
		o.UsePathStyle = o.BaseEndpoint != nil
		o.TracerProvider = awstrace.New(s.traces)
	})
	return s3c, sqs.NewFromConfig(ac, s.cfg.placeSQS, func(o *sqs.Options) {
		o.TracerProvider = awstrace.New(s.traces)
	}), nil
}

// placeSQS sends requests to the configured endpoint, or without one to the queue's own
// host: the SDK looks at the queue's region only.
func (c config) placeSQS(o *sqs.Options) {
	if e := c.endpointSQS(); e != "" {
		o.BaseEndpoint = &e
	}
	variant := o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled ||
		o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled
	if e := c.queueEndpoint(); e != "" && o.BaseEndpoint == nil && !variant {
		o.BaseEndpoint = &e
	}
}

// credentials marks the errors of its source: the SDK passes on whatever a metadata or
// token service answered, a missing role as its 404.
type credentials struct{ aws.CredentialsProvider }

// Retrieve implements aws.CredentialsProvider.
func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	keys, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: %w", awserr.ErrNoCredentials, err)
	}
	return keys, err
}
