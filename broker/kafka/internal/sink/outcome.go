// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
)

// verdict is what an answer of a broker says about one record. This table decides:
//
//	MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD,
//	UNSUPPORTED_FOR_MESSAGE_FORMAT              Rejected, once it was refused alone (K13)
//	INVALID_TOPIC_EXCEPTION                     Rejected
//	unknown topic, not authorised, no leader, too few replicas, wrong time, disk trouble,
//	throttled, producer refused                 Retry: nothing was stored
//	REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND, UNKNOWN_SERVER_ERROR,
//	everything this table does not have         Unknown
func verdict(err error) broker.Outcome {
	var ke *kerr.Error
	if !errors.As(err, &ke) {
		return broker.Unknown
	}
	switch ke {
	case kerr.InvalidTopicException:
		return broker.Rejected
	case kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InconsistentTopicID,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SaslAuthenticationFailed,
		kerr.LeaderNotAvailable, kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch,
		kerr.UnknownLeaderEpoch, kerr.BrokerNotAvailable, kerr.ReplicaNotAvailable,
		kerr.NotEnoughReplicas, kerr.KafkaStorageError, kerr.CorruptMessage,
		kerr.InvalidTimestamp, kerr.InvalidRequiredAcks, kerr.PolicyViolation,
		kerr.ThrottlingQuotaExceeded, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
		kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.InvalidTxnState,
		kerr.ConcurrentTransactions, kerr.OperationNotAttempted, kerr.TransactionAbortable,
		kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator:
		return broker.Retry
	}
	return broker.Unknown
}

// poison reports whether a broker refuses to store a record, or the batch it was in, for what is
// in it.
func poison(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) ||
		errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.UnsupportedForMessageFormat)
}

// reason puts err into words of our own: the library's hold addresses.
func reason(err error) string {
	var ke *kerr.Error
	switch {
	case errors.As(err, &ke):
		return ke.Message
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrRecordTimeout),
		errors.Is(err, kgo.ErrRecordRetries):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "stopped before the answer"
	case errors.Is(err, kgo.ErrClientClosed):
		return "closed"
	}
	return "the connection failed"
}
