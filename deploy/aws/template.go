package aws

// object is an object of JSON.
type object = map[string]any

// The names of parameters and resources in the template.
const (
	bucketName, prefix, suffix, hasSuffix = "BucketName", "Prefix", "Suffix", "HasSuffix"

	bucket, queue, deadLetters, queuePolicy = "Bucket", "Queue", "DeadLetterQueue", "QueuePolicy"
	policy, role, profile                   = "Policy", "Role", "InstanceProfile"
)

// Template returns a CloudFormation template of what localstack/setup.sh makes, and of a
// role with the rights of the daemon. The queues have the name of the stack.
func Template() any {
	return object{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Description":              "Container Image Manager: bucket, queue, dead-letter queue, notification, role.",
		"Parameters":               parameters(),
		"Conditions":               object{hasSuffix: isNot(ref(suffix), "")},
		"Resources": object{
			bucket: bucketResource(), queue: queueResource(), deadLetters: deadLetterResource(),
			queuePolicy: queuePolicyResource(),
			policy:      policyResource(), role: roleResource(), profile: profileResource(),
		},
		"Outputs": outputs(),
	}
}

func parameters() object {
	return object{
		bucketName: object{
			"Type": "String", "Description": "Name of the bucket, which is made.",
			"AllowedPattern": "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
		},
		prefix: object{
			"Type": "String", "Default": "images/", "AllowedPattern": "[A-Za-z0-9._/-]+",
			"Description": "Keys that are announced begin so. It is also the daemon's S3_PREFIX.",
		},
		suffix: object{
			"Type": "String", "Default": ".tar", "AllowedPattern": "[A-Za-z0-9._/-]*",
			"Description": "Keys that are announced end so. Empty: any end.",
		},
	}
}

// bucketResource is made last: S3 refuses a queue that it may not send to yet. It is
// kept when the stack is deleted.
func bucketResource() object {
	rule := func(name, value string) object { return object{"Name": name, "Value": ref(value)} }
	suffixRule := object{"Fn::If": []any{hasSuffix, rule("suffix", suffix), ref("AWS::NoValue")}}
	return object{
		"Type": "AWS::S3::Bucket", "DependsOn": queuePolicy,
		"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain",
		"Properties": object{
			"BucketName": ref(bucketName),
			"PublicAccessBlockConfiguration": object{
				"BlockPublicAcls": true, "BlockPublicPolicy": true,
				"IgnorePublicAcls": true, "RestrictPublicBuckets": true,
			},
			"NotificationConfiguration": object{"QueueConfigurations": []any{object{
				"Event": "s3:ObjectCreated:*", "Queue": arnOf(queue),
				"Filter": object{"S3Key": object{"Rules": []any{rule("prefix", prefix), suffixRule}}},
			}}},
		},
	}
}

// queueResource is the queue. maxReceiveCount is high because every message that is
// handed back untouched counts; the daemon counts its attempts itself.
func queueResource() object {
	return object{"Type": "AWS::SQS::Queue", "Properties": object{
		"QueueName":                     sub("${AWS::StackName}"),
		"VisibilityTimeout":             60,
		"MessageRetentionPeriod":        4 * 86400,
		"ReceiveMessageWaitTimeSeconds": 20,
		"RedrivePolicy":                 object{"deadLetterTargetArn": arnOf(deadLetters), "maxReceiveCount": 100},
	}}
}

// deadLetterResource keeps messages for as long as SQS can: their age goes on counting
// from the day they were first sent.
func deadLetterResource() object {
	return object{"Type": "AWS::SQS::Queue", "Properties": object{
		"QueueName":              sub("${AWS::StackName}-dlq"),
		"MessageRetentionPeriod": 14 * 86400,
	}}
}

// queuePolicyResource lets S3, and for this bucket of this account alone, send to the
// queue. It names the bucket, which does not exist yet, by the parameter.
func queuePolicyResource() object {
	return object{"Type": "AWS::SQS::QueuePolicy", "Properties": object{
		"Queues": []any{ref(queue)},
		"PolicyDocument": object{"Version": "2012-10-17", "Statement": []any{object{
			"Sid": "ContainerImagesFromS3", "Effect": "Allow", "Principal": object{"Service": "s3.amazonaws.com"},
			"Action": "sqs:SendMessage", "Resource": arnOf(queue),
			"Condition": object{
				"ArnEquals":    object{"aws:SourceArn": sub("arn:${AWS::Partition}:s3:::${" + bucketName + "}")},
				"StringEquals": object{"aws:SourceAccount": ref("AWS::AccountId")},
			},
		}}},
	}}
}

func policyResource() object {
	return object{"Type": "AWS::IAM::ManagedPolicy", "Properties": object{
		"Description": "What a host of the Container Image Manager may do.",
		"PolicyDocument": Policy(map[Place]any{
			Objects: sub("${" + bucket + ".Arn}/${" + prefix + "}*"), Bucket: arnOf(bucket),
			Queue: arnOf(queue), DeadLetterQueue: arnOf(deadLetters),
		}),
	}}
}

// roleResource is for hosts on EC2.
func roleResource() object {
	return object{"Type": "AWS::IAM::Role", "Properties": object{
		"ManagedPolicyArns": []any{ref(policy)},
		"AssumeRolePolicyDocument": object{"Version": "2012-10-17", "Statement": []any{object{
			"Effect": "Allow", "Principal": object{"Service": sub("ec2.${AWS::URLSuffix}")}, "Action": "sts:AssumeRole",
		}}},
	}}
}

func profileResource() object {
	return object{"Type": "AWS::IAM::InstanceProfile", "Properties": object{"Roles": []any{ref(role)}}}
}

// outputs has the settings of the daemon as lines of its environment file.
func outputs() object {
	output := func(description string, value any) object {
		return object{"Description": description, "Value": value}
	}
	return object{
		"Settings": output("Lines for /etc/consumer/consumer.env.", sub("S3_BUCKET=${"+bucket+"}\n"+
			"S3_PREFIX=${"+prefix+"}\nSQS_QUEUE_URL=${"+queue+"}\nSQS_DEAD_LETTER_URL=${"+deadLetters+"}\n"+
			"AWS_REGION=${AWS::Region}")),
		"QueueName":           output("For the alarms.", attribute(queue, "QueueName")),
		"DeadLetterQueueName": output("For the alarms.", attribute(deadLetters, "QueueName")),
		profile:               output("For hosts on EC2.", ref(profile)),
		"PolicyArn":           output("For principals of your own.", ref(policy)),
	}
}

func isNot(a, b any) object {
	return object{"Fn::Not": []any{object{"Fn::Equals": []any{a, b}}}}
}

func ref(name string) object           { return object{"Ref": name} }
func sub(text string) object           { return object{"Fn::Sub": text} }
func attribute(of, name string) object { return object{"Fn::GetAtt": []any{of, name}} }
func arnOf(resource string) object     { return attribute(resource, "Arn") }
