package doctor

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// mostSkew is more than an answer takes, and less than does any harm.
	mostSkew = time.Minute
	// refusedSkew is what a signature may be off (IAM user guide, "Elements of an AWS
	// API request signature").
	refusedSkew = 5 * time.Minute
)

// Clock compares this machine's clock with the dates of AWS's answers. Its zero value is
// ready. The calls of its clients must come one after the other.
type Clock struct {
	ahead time.Duration // of this machine's clock, by the newest answer
	known bool
}

// Watch adds the clock to the options of a client. Every answer counts, errors as well.
func (c *Clock) Watch(stack *middleware.Stack) error {
	watch := func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
		middleware.DeserializeOutput, middleware.Metadata, error,
	) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if answer, is := out.RawResponse.(*smithyhttp.Response); is && answer.Response != nil {
			c.note(answer.Header.Get("Date"), time.Now())
		}
		return out, metadata, err
	}
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("DoctorClock", watch), middleware.After)
}

func (c *Clock) note(date string, now time.Time) {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.ahead, c.known = now.Sub(theirs), true
}

func (c *Clock) check() Finding {
	const check, remedy = "clock", "set the clock, and keep it: `timedatectl set-ntp true`"
	off := fmt.Sprintf("this machine's clock is %s ahead of AWS's", c.ahead.Round(time.Second))
	if c.ahead < 0 {
		off = fmt.Sprintf("this machine's clock is %s behind AWS's", -c.ahead.Round(time.Second))
	}
	switch skew := c.ahead.Abs(); {
	case !c.known:
		return warn(check, "mend the connection first", "not looked at: AWS did not answer")
	case skew >= refusedSkew:
		return fail(check, remedy, "%s: signatures are refused", off)
	case skew >= mostSkew:
		return warn(check, remedy, "%s", off)
	}
	return ok(check, "within a minute of AWS's")
}
