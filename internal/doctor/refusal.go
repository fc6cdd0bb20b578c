package doctor

import (
	"errors"
	"fmt"
	"net"

	"imagemanager.internal/internal/awserr"
)

// refusal is the finding for a call that failed. A missing right is as bad as level says:
// Fail if the daemon needs it, Warn if only this look does. action and resource are those
// of an IAM policy.
func refusal(check string, level Level, action, resource string, err error) Finding {
	f := Finding{Check: check, Result: Fail, Text: fmt.Sprintf("%s fails: %s", action, why(err))}
	switch awserr.Classify(err) {
	case awserr.Credentials:
		f.Remedy = "correct the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the role), and the clock"
	case awserr.Denied:
		f.Result, f.Remedy = level,
			fmt.Sprintf("allow %s on %s; docs/operating.md has the whole policy", action, resource)
	case awserr.Network, awserr.Timeout:
		f.Remedy = "look at AWS_ENDPOINT_URL, the network, name resolution, proxy and firewall"
	case awserr.Throttled, awserr.Server:
		f.Result, f.Remedy = Warn, "try again in a minute"
	default:
		f.Remedy = "look at AWS_REGION and AWS_ENDPOINT_URL: does S3 or SQS answer there?"
	}
	return f
}

// why says in plain words what went wrong with a call.
func why(err error) string {
	code := awserr.Code(err)
	var name *net.DNSError
	var connection *net.OpError
	switch class := awserr.Classify(err); {
	case class == awserr.Credentials && code == "":
		return "there are no credentials"
	case class == awserr.Credentials:
		return "the credentials are refused (" + code + ")"
	case class == awserr.Denied && code != "":
		return "access denied (" + code + ")"
	case class == awserr.Denied:
		return "access denied"
	case class == awserr.Timeout:
		return "no answer in time"
	case errors.As(err, &name):
		return "no host has the name " + name.Name
	case errors.As(err, &connection):
		return connection.Error()
	case code != "":
		return "the answer is " + code
	default:
		return "the answer is not one of AWS, class " + string(class)
	}
}
