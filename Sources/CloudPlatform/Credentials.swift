public import HostSystem

/// An AWS access key pair, with the session token where the key is a temporary one.
public struct Credentials: Sendable, Equatable {
    public let accessKey: String
    public let secretKey: Secret
    public let sessionToken: Secret?
    /// Seconds since 1970; nil for keys that do not expire.
    public let expires: Int64?
    /// Where they came from, for messages: `environment`, `instance role front`, `profile default`.
    public let origin: String

    public init(
        accessKey: String, secretKey: Secret, sessionToken: Secret? = nil, expires: Int64? = nil, origin: String
    ) {
        self.accessKey = accessKey
        self.secretKey = secretKey
        self.sessionToken = sessionToken
        self.expires = expires
        self.origin = origin
    }
}

/// Gives credentials that are good now, renewing them before they expire. Blocking; safe from any thread.
public protocol CredentialProvider: Sendable {
    /// Nil where there are none at all: requests then go unsigned. Throws where there should be some but they cannot be had.
    func credentials(stop: StopFlag) throws -> Credentials?
    /// The service refused these (ExpiredToken, InvalidAccessKeyId): the next call asks for fresh ones, where that can help.
    func invalidate()
}
