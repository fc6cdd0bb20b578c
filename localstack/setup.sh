#!/bin/sh
# Makes what the daemon consumes: a bucket, a queue with its dead-letter queue, and the notification from one to the other.
# The same script serves AWS and LocalStack. Running it again changes nothing, or brings what differs back to what it says.
set -eu

usage() {
	cat <<'HELP'
usage: setup.sh --bucket NAME [options]

Makes an S3 bucket, an SQS queue, its dead-letter queue, and the notification of s3:ObjectCreated:* from the bucket to the queue.
It is safe to run again. Credentials are the AWS CLI's own (environment, profile or role). The settings for the daemon are printed
on standard output as NAME=value; progress goes to standard error.

option                environment          default     meaning
--bucket NAME         S3_BUCKET            (required)  bucket; made if it is missing
--prefix PREFIX       S3_PREFIX            images/     keys that are announced begin so
--suffix SUFFIX       S3_SUFFIX            .tar        and end so; empty: any end
--queue NAME          QUEUE_NAME           images      queue; made if it is missing
--dlq NAME            DLQ_NAME             QUEUE-dlq   dead-letter queue; made if it is missing
--max-receives N      MAX_RECEIVES         100         receives before SQS dead-letters a message, 1..1000. The daemon counts its
                                                       attempts itself; every message that it hands back untouched counts here, too
--visibility SECONDS  QUEUE_VISIBILITY     60          default visibility time-out, 0..43200; the daemon sets its own
--retention SECONDS   QUEUE_RETENTION      345600      life of a message, 60..1209600; in the dead-letter queue always 14 days
--region REGION       AWS_REGION           us-east-1   of bucket and queues (AWS_DEFAULT_REGION is looked at, too)
--endpoint-url URL    AWS_ENDPOINT_URL     (AWS)       another endpoint for S3 and SQS, such as http://localhost:4566
--account ID          AWS_ACCOUNT_ID       (looked up) twelve digits; needed by --dry-run only, which cannot look it up
--tries N             SETUP_TRIES          12          how often to offer S3 the notification: a new queue policy needs up to a
--pause SECONDS       SETUP_PAUSE          5           minute to be seen, and S3 refuses until then
--replace-policy                                       overwrite a queue policy that has statements of others
--check                                                make nothing; succeed if queue and notification are there already
--dry-run                                              print the calls of a first run as a shell script; make none
--help                                                 this

AWS_CLI names the program to call, by default aws. Needed permissions: s3:CreateBucket, s3:ListBucket, s3:GetBucketNotification,
s3:PutBucketNotification; sqs:CreateQueue, sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:SetQueueAttributes.

Exit codes: 0 success, 2 bad arguments (all at once), otherwise the AWS CLI's, after its message.
HELP
}

say() { printf '%s\n' "$*" >&2; }

die() {
	say "setup: $*"
	exit 1
}

problems=
problem() { problems="${problems}setup: $*
"; }

bucket=${S3_BUCKET-}
prefix=${S3_PREFIX-images/}
suffix=${S3_SUFFIX-.tar}
queue=${QUEUE_NAME:-images}
dlq=${DLQ_NAME-}
max_receives=${MAX_RECEIVES:-100}
visibility=${QUEUE_VISIBILITY:-60}
retention=${QUEUE_RETENTION:-345600}
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}
endpoint=${AWS_ENDPOINT_URL-}
account=${AWS_ACCOUNT_ID-}
tries=${SETUP_TRIES:-12}
pause=${SETUP_PAUSE:-5}
aws_cli=${AWS_CLI:-aws}
replace_policy=
check_only=
dry_run=

# The names by which a later run knows its own among the statements and configurations of others.
statement_id=ContainerImagesFromS3
configuration_id=container-images
dlq_retention=1209600 # the longest there is: a message's age goes on counting from the day it was first sent

set_option() {
	case $1 in
	--bucket) bucket=$2 ;;
	--prefix) prefix=$2 ;;
	--suffix) suffix=$2 ;;
	--queue) queue=$2 ;;
	--dlq) dlq=$2 ;;
	--max-receives) max_receives=$2 ;;
	--visibility) visibility=$2 ;;
	--retention) retention=$2 ;;
	--region) region=$2 ;;
	--endpoint-url) endpoint=$2 ;;
	--account) account=$2 ;;
	--tries) tries=$2 ;;
	--pause) pause=$2 ;;
	*)
		problem "unknown option $1"
		return 1
		;;
	esac
}

parse() {
	while [ $# -gt 0 ]; do
		case $1 in
		--help | -h)
			usage
			exit 0
			;;
		--check) check_only=1 ;;
		--dry-run) dry_run=1 ;;
		--replace-policy) replace_policy=1 ;;
		--*=*) set_option "${1%%=*}" "${1#*=}" || : ;;
		--*)
			if [ $# -lt 2 ]; then
				problem "option $1 is unknown or lacks its value"
			elif set_option "$1" "$2"; then
				shift
			fi
			;;
		*) problem "unexpected argument $1" ;;
		esac
		shift
	done
	dlq=${dlq:-$queue-dlq}
}

# matches TEXT ERE: the whole of TEXT is one line that matches. grep alone would be content with one line of many.
matches() {
	case $1 in *"
"*) return 1 ;; esac
	printf '%s\n' "$1" | LC_ALL=C grep -Eqx -- "$2"
}

# within NAME VALUE LOW HIGH
within() {
	if ! matches "$2" '[0-9]{1,7}' || [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then
		problem "$1 '$2' is not a number from $3 to $4"
	fi
}

queue_name() {
	case $2 in
	*.fifo) problem "$1 '$2' is a FIFO queue: S3 cannot notify one" ;;
	*) matches "$2" '[A-Za-z0-9_-]{1,80}' || problem "$1 '$2' is not a queue name: 1 to 80 of A-Z a-z 0-9 _ -" ;;
	esac
}

check() {
	if [ -z "$bucket" ]; then
		problem "no bucket: give --bucket or S3_BUCKET"
	else
		matches "$bucket" '[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]' ||
			problem "--bucket '$bucket' is not a bucket name: 3 to 63 of a-z 0-9 . - beginning and ending with a letter or digit"
	fi
	# S3 wants other characters URL-encoded in a filter, and the daemon's S3_PREFIX as they are: two spellings that drift apart.
	matches "$prefix" '[A-Za-z0-9._/-]{1,900}' || problem "--prefix '$prefix' must be one or more of A-Z a-z 0-9 . _ / -"
	matches "$suffix" '[A-Za-z0-9._/-]{0,100}' || problem "--suffix '$suffix' must be empty or of A-Z a-z 0-9 . _ / -"
	queue_name --queue "$queue"
	queue_name --dlq "$dlq"
	[ "$queue" != "$dlq" ] || problem "--dlq '$dlq' is the queue itself"
	within --max-receives "$max_receives" 1 1000
	within --visibility "$visibility" 0 43200
	within --retention "$retention" 60 1209600
	within --tries "$tries" 1 1000
	within --pause "$pause" 0 3600
	matches "$region" '[a-z]{2}(-[a-z]+)+-[0-9]+' || problem "--region '$region' is not a region"
	[ -z "$endpoint" ] || matches "$endpoint" 'https?://[^/?#[:space:]]+/?' ||
		problem "--endpoint-url '$endpoint' is not an http:// or https:// address without a path"
	[ -z "$account" ] || matches "$account" '[0-9]{12}' || problem "--account '$account' is not twelve digits"
	[ -z "$check_only" ] || [ -z "$dry_run" ] || problem "--check and --dry-run exclude each other"
	[ -z "$problems" ] || {
		printf '%s' "$problems" >&2
		say "setup: --help lists the options"
		exit 2
	}
	endpoint=${endpoint%/}
	case $region in
	cn-*) partition=aws-cn domain=amazonaws.com.cn ;;
	us-gov-*) partition=aws-us-gov domain=amazonaws.com ;;
	*) partition=aws domain=amazonaws.com ;;
	esac
}

# quoted prints its arguments as a shell would have to be given them.
quoted() {
	gap=
	for word in "$@"; do
		if matches "$word" '[A-Za-z0-9_./:=@%+-]+'; then
			printf '%s%s' "$gap" "$word"
		else
			printf "%s'%s'" "$gap" "$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")"
		fi
		gap=' '
	done
}

# call runs the AWS CLI. Endpoint and region are given as options: versions before 2.13 do not know AWS_ENDPOINT_URL.
call() {
	if [ -n "$endpoint" ]; then set -- "$@" --endpoint-url "$endpoint"; fi
	set -- "$aws_cli" "$@" --region "$region"
	if [ -n "$dry_run" ]; then
		quoted "$@"
		printf '%s' "${ending-
}"
	else
		AWS_PAGER='' "$@"
	fi
}

# probe asks for what may not be there. A refusal for another reason is reported by the call that is then made in its place.
probe() {
	if [ -n "$dry_run" ]; then
		ending=' >/dev/null 2>&1 ||
  '
		call "$@"
		unset ending
		return 1
	fi
	call "$@" 2>/dev/null
}

make_bucket() {
	say "bucket $bucket"
	if probe s3api head-bucket --bucket "$bucket"; then return; fi
	if [ "$region" = us-east-1 ]; then # the one region that may not be named
		call s3api create-bucket --bucket "$bucket"
	else
		call s3api create-bucket --bucket "$bucket" --create-bucket-configuration "LocationConstraint=$region"
	fi
}

# make_queue NAME leaves the queue's address in url and its ARN in arn.
make_queue() {
	say "queue $1"
	if [ -n "$dry_run" ]; then
		probe sqs get-queue-url --queue-name "$1" || call sqs create-queue --queue-name "$1"
		url=${endpoint:-https://sqs.$region.$domain}/${account:-ACCOUNT_ID}/$1
		attribute QueueArn
		arn=arn:$partition:sqs:$region:${account:-ACCOUNT_ID}:$1
		return
	fi
	url=$(probe sqs get-queue-url --queue-name "$1" --query QueueUrl --output text) ||
		url=$(call sqs create-queue --queue-name "$1" --query QueueUrl --output text)
	arn=$(attribute QueueArn)
	matches "$arn" 'arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+' || die "queue $1 has an odd ARN: '$arn'"
}

# attribute NAME prints an attribute of the queue at url, or None.
attribute() {
	call sqs get-queue-attributes --queue-url "$url" --attribute-names "$1" --query "Attributes.$1" --output text
}

json_string() { printf '"%s"' "$(printf '%s\n' "$1" | sed 's/[\\"]/\\&/g')"; }

# policy lets S3, and for this bucket of this account alone, send to the queue.
policy() {
	owner=${arn#arn:*:sqs:*:}
	partition=${arn#arn:}
	printf '{"Version":"2012-10-17","Statement":[{"Sid":"%s","Effect":"Allow","Principal":{"Service":"s3.amazonaws.com"},' "$statement_id"
	printf '"Action":"sqs:SendMessage","Resource":"%s","Condition":{"ArnEquals":{"aws:SourceArn":"arn:%s:s3:::%s"},' "$arn" "${partition%%:*}" "$bucket"
	printf '"StringEquals":{"aws:SourceAccount":"%s"}}}]}' "${owner%%:*}"
}

# keep_policy stops before statements of others would be lost: a queue has one policy, and it is replaced as a whole.
keep_policy() {
	if [ -n "$replace_policy" ]; then return; fi
	if [ -n "$dry_run" ]; then
		attribute Policy
		return
	fi
	there=$(attribute Policy)
	all=$(printf '%s\n' "$there" | grep -o '"Effect"' | wc -l)
	ours=$(printf '%s\n' "$there" | grep -o "\"$statement_id\"" | wc -l)
	[ "$all" -eq "$ours" ] ||
		die "the policy of queue $queue has statements of others: add ours by hand, or overwrite it with --replace-policy. Ours: $(policy)"
}

configure_dlq() {
	dlq_url=$url dlq_arn=$arn
	call sqs set-queue-attributes --queue-url "$url" --attributes "{\"MessageRetentionPeriod\":\"$dlq_retention\"}"
}

configure_queue() {
	queue_url=$url queue_arn=$arn
	keep_policy
	redrive="{\"deadLetterTargetArn\":\"$dlq_arn\",\"maxReceiveCount\":$max_receives}"
	attributes="{\"VisibilityTimeout\":\"$visibility\",\"MessageRetentionPeriod\":\"$retention\",\"ReceiveMessageWaitTimeSeconds\":\"20\""
	attributes="$attributes,\"RedrivePolicy\":$(json_string "$redrive"),\"Policy\":$(json_string "$(policy)")}"
	call sqs set-queue-attributes --queue-url "$url" --attributes "$attributes"
}

# configuration is our part of the bucket's notifications.
configuration() {
	rules="{\"Name\":\"prefix\",\"Value\":\"$prefix\"}"
	if [ -n "$suffix" ]; then rules="$rules,{\"Name\":\"suffix\",\"Value\":\"$suffix\"}"; fi
	printf '{"Id":"%s","QueueArn":"%s","Events":["s3:ObjectCreated:*"],"Filter":{"Key":{"FilterRules":[%s]}}}' \
		"$configuration_id" "$queue_arn" "$rules"
}

# notify adds our configuration to those of others: a bucket has one set of them, and it is replaced as a whole. The merging is done
# by the CLI's own query language, so that nothing else need be installed.
notify() {
	say "notification $bucket/$prefix*$suffix -> $queue"
	merge="merge(@, {QueueConfigurations: [(QueueConfigurations || \`[]\`)[?Id != '$configuration_id'], \`[$(configuration)]\`][]})"
	if [ -n "$dry_run" ]; then
		combined
		printf '# where others have configurations, a real run offers what the call above prints\n'
		offer "{\"QueueConfigurations\":[$(configuration)]}"
		stored
		return
	fi
	merged=$(combined)
	attempt=1
	until refusal=$(offer "$merged" 2>&1); do
		# InvalidArgument is what S3 says while it may not yet send to the queue. Anything else does not get better.
		case $refusal in *"(InvalidArgument)"*) ;; *) die "$refusal" ;; esac
		[ "$attempt" -lt "$tries" ] || die "$refusal"
		say "S3 does not accept the queue yet (try $attempt of $tries):" "$refusal"
		attempt=$((attempt + 1))
		sleep "$pause"
	done
	confirm
}

# confirm reads back what was offered: some servers say 200 to a notification and forget it, and then nothing would ever arrive. S3
# may show a new configuration a little later than it has taken it.
confirm() {
	attempt=1
	until there=$(stored) && [ "$there" = "$queue_arn" ]; do
		[ "$attempt" -lt "$tries" ] || die "${endpoint:-S3} accepted the notification '$configuration_id' of bucket $bucket to queue $queue," \
			"but does not have it (asked for it, it answers '$there'): no upload would be announced. Use a server with bucket notifications" \
			"(AWS, LocalStack), or send the events to $queue_url yourself; \`consumer backfill\` submits what is in the bucket already"
		say "S3 does not show the notification yet (try $attempt of $tries)"
		attempt=$((attempt + 1))
		sleep "$pause"
	done
}

# stored prints the ARN of the queue that our notification goes to, or None.
stored() {
	call s3api get-bucket-notification-configuration --bucket "$bucket" \
		--query "(QueueConfigurations || \`[]\`)[?Id == '$configuration_id'].QueueArn | [0]" --output text
}

combined() { call s3api get-bucket-notification-configuration --bucket "$bucket" --query "$merge" --output json; }

offer() { call s3api put-bucket-notification-configuration --bucket "$bucket" --notification-configuration "$1"; }

# look asks any server of S3 and SQS what the last steps of a run leave behind.
look() {
	call sqs get-queue-url --queue-name "$queue" >/dev/null
	there=$(stored)
	case $there in
	*:"$queue") ;;
	*) die "bucket $bucket does not announce to queue $queue: run this without --check (the notification's queue is '$there')" ;;
	esac
}

settings() {
	printf 'S3_BUCKET=%s\nS3_PREFIX=%s\nSQS_QUEUE_URL=%s\nSQS_DEAD_LETTER_URL=%s\nAWS_REGION=%s\n' \
		"$bucket" "$prefix" "$queue_url" "$dlq_url" "$region"
	if [ -n "$endpoint" ]; then printf 'AWS_ENDPOINT_URL=%s\n' "$endpoint"; fi
}

# made hides what successful calls print; standard output is for the settings alone.
made() { if [ -n "$dry_run" ]; then "$@"; else "$@" >/dev/null; fi; }

parse "$@"
check
if [ -z "$dry_run" ] && ! command -v "$aws_cli" >/dev/null; then
	die "$aws_cli is not installed: Debian's package is awscli; or name the program in AWS_CLI"
fi
if [ -n "$dry_run" ] && [ -z "$account" ]; then say "ACCOUNT_ID stands for your account; --account fills it in"; fi
if [ -n "$check_only" ]; then
	look
	exit
fi
made make_bucket
made make_queue "$dlq"
made configure_dlq
made make_queue "$queue"
made configure_queue
made notify
if [ -z "$dry_run" ]; then settings; fi
