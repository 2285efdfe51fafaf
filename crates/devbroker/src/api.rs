//! Which requests the broker answers, in which versions, and the frame around them.
//!
//! The versions are those that librdkafka 2.12 asks for; a client negotiates them by ApiVersions.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};

/// Lowest and highest version of each request that is answered.
const VERSIONS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 10),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::JoinGroup, 0, 5),
    (ApiKey::Heartbeat, 0, 3),
    (ApiKey::LeaveGroup, 0, 3),
    (ApiKey::SyncGroup, 0, 3),
    (ApiKey::DescribeGroups, 0, 4),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 4),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::DeleteRecords, 0, 1),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 3),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 2),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 1),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
];

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("a request too short to have a header")]
    NoHeader,
    #[error("request {api} version {version} is not answered here")]
    Unsupported { api: i16, version: i16 },
    #[error("{api:?} version {version} cannot be decoded: {cause:#}")]
    Decode { api: ApiKey, version: i16, cause: String },
    #[error("the response to {api:?} version {version} cannot be encoded: {cause:#}")]
    Encode { api: ApiKey, version: i16, cause: String },
}

/// A decoded request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    pub(crate) body: RequestKind,
}

impl Request {
    /// Decodes a frame. The inner error is a response: a client that asks for versions in a version that
    /// is not known here learns from it which one to use.
    pub(crate) fn decode(mut frame: Bytes) -> Result<Result<Self, BytesMut>, Error> {
        let mut peek = &frame[..];
        let key = peek.try_get_i16().map_err(|_| Error::NoHeader)?;
        let version = peek.try_get_i16().map_err(|_| Error::NoHeader)?;
        let correlation_id = peek.try_get_i32().map_err(|_| Error::NoHeader)?;
        let unsupported = Error::Unsupported { api: key, version };
        let Ok(api) = ApiKey::try_from(key) else { return Err(unsupported) };
        let supported =
            VERSIONS.iter().any(|&(known, min, max)| known == api && (min..=max).contains(&version));
        if !supported {
            if api != ApiKey::ApiVersions {
                return Err(unsupported);
            }
            let refusal = ResponseKind::ApiVersions(versions(Some(ResponseError::UnsupportedVersion)));
            return Ok(Err(encode(api, 0, correlation_id, &refusal)?));
        }
        let failed = |cause| Error::Decode { api, version, cause: format!("{cause:#}") };
        let header =
            RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(failed)?;
        let body = RequestKind::decode(api, &mut frame, version).map_err(failed)?;
        Ok(Ok(Self {
            api,
            version,
            correlation_id,
            client_id: header.client_id.map(|id| id.to_string()).unwrap_or_default(),
            body,
        }))
    }
}

/// The frame of a response, with its length in front.
pub(crate) fn encode(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &ResponseKind,
) -> Result<BytesMut, Error> {
    let failed = |cause: String| Error::Encode { api, version, cause };
    let mut frame = BytesMut::with_capacity(256);
    frame.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header
        .encode(&mut frame, api.response_header_version(version))
        .and_then(|()| body.encode(&mut frame, version))
        .map_err(|cause| failed(format!("{cause:#}")))?;
    let length = i32::try_from(frame.len() - 4).map_err(|cause| failed(cause.to_string()))?;
    if let Some(field) = frame.get_mut(..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(frame)
}

/// The answer to ApiVersions.
pub(crate) fn versions(error: Option<ResponseError>) -> ApiVersionsResponse {
    let keys = VERSIONS.iter().map(|&(api, min, max)| {
        ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max)
    });
    ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_api_keys(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_offered_is_one_that_the_codec_knows() {
        for &(api, min, max) in VERSIONS {
            let known = api.valid_versions();
            assert!(known.min <= min && max <= known.max, "{api:?} {min}..={max} against {known}");
        }
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_answered_with_the_versions() {
        let mut frame = BytesMut::new();
        frame.put_i16(ApiKey::ApiVersions as i16);
        frame.put_i16(99);
        frame.put_i32(7);
        let mut response = Request::decode(frame.freeze()).unwrap().unwrap_err().freeze();
        assert_eq!(response.get_i32() as usize, response.len());
        assert_eq!(response.get_i32(), 7);
        assert_eq!(response.get_i16(), ResponseError::UnsupportedVersion.code());
    }

    #[test]
    fn what_is_not_answered_is_refused_by_name() {
        let mut frame = BytesMut::new();
        frame.put_i16(ApiKey::Produce as i16);
        frame.put_i16(2);
        frame.put_i32(7);
        let error = Request::decode(frame.freeze()).unwrap_err();
        assert_eq!(error.to_string(), "request 0 version 2 is not answered here");
        assert!(matches!(Request::decode(Bytes::from_static(&[0, 0])), Err(Error::NoHeader)));
    }
}
