public import HostSystem

/// Where backups lie, as the settings write it: `s3://bucket/prefix/`, `https://host/file.tar.zst`, `file:///folder/`.
public struct StoreLocation: Sendable, Equatable, CustomStringConvertible {
    public enum Scheme: Sendable, Equatable {
        case s3, web, file
    }

    public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        public let description: String
    }

    public let scheme: Scheme
    /// What calls of the store are given: the key in the bucket, the path on the web server (encoded, without its first
    /// slash), the name in the folder (empty for the folder itself).
    public let key: String
    /// The bucket, the web server's origin, or the folder.
    public let root: String
    /// Of a web address; it may be a signature, so it is never shown.
    public let query: Secret?

    /// Whether it names a group of objects, of which the newest backup is chosen, and not one object.
    public var isPrefix: Bool { scheme == .file ? key.isEmpty : key.isEmpty || key.hasSuffix("/") }

    /// Without the query.
    public var description: String {
        switch scheme {
        case .s3: "s3://\(root)/" + Printable.text(key)
        case .web: root + "/" + Printable.text(key)
        case .file: "file://" + Printable.text(root + key)
        }
    }

    public init(parsing url: String) throws(Problem) {
        let shown = HTTPRequest.withoutQuery(url)
        guard let mark = url.firstRange(of: "://") else {
            throw Problem(description: "\(shown): a store begins with s3://, https://, http:// or file://")
        }
        let rest = url[mark.upperBound...]
        switch url[..<mark.lowerBound].lowercased() {
        case "s3":
            let bucket = rest.prefix { $0 != "/" }
            guard Self.isBucket(bucket) else {
                throw Problem(
                    description: "\(shown): \(Printable.text(String(bucket), limit: 80)) is no name of a bucket")
            }
            (scheme, root, query) = (.s3, String(bucket), nil)
            key = String(rest.dropFirst(bucket.count + 1))
        case "http", "https":
            guard let address = WebAddress(url) else {
                throw Problem(
                    description: "\(Self.withoutUser(shown)): no web address (a user name in it is refused too)")
            }
            (scheme, root, query) = (.web, address.origin, address.query.map { Secret($0) })
            key = String(address.path.dropFirst())
        case "file":
            let host = rest.prefix { $0 != "/" }
            guard host.isEmpty || host == "localhost", let path = WebAddress.decoded(rest.dropFirst(host.count)),
                path.hasPrefix("/"), !path.utf8.contains(0)
            else { throw Problem(description: "\(shown): a folder of this host is written file:///folder/") }
            let folder = path[...(path.lastIndex(of: "/") ?? path.startIndex)]
            (scheme, root, query) = (.file, String(folder), nil)
            key = String(path.dropFirst(folder.count))
        default:
            throw Problem(description: "\(shown): a store begins with s3://, https://, http:// or file://")
        }
    }

    /// The rules for buckets, and the wider ones of old buckets in us-east-1 and of S3-compatible servers.
    private static func isBucket(_ text: Substring) -> Bool {
        (3...255).contains(text.utf8.count) && text != "..."
            && text.utf8.allSatisfy { byte in
                (byte >= 0x61 && byte <= 0x7a) || (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x30 && byte <= 0x39)
                    || byte == 0x2d || byte == 0x2e || byte == 0x5f
            }
    }

    private static func withoutUser(_ shown: String) -> String {
        guard let at = shown.lastIndex(of: "@"), let slashes = shown.firstRange(of: "//") else { return shown }
        return slashes.upperBound < at
            ? String(shown[..<slashes.upperBound] + shown[shown.index(after: at)...]) : shown
    }
}

/// How stores are reached.
public struct StoreOptions: Sendable {
    public var region: String?
    /// The URL of an S3-compatible server.
    public var endpoint: String?
    /// Requests are not signed.
    public var isAnonymous: Bool
    /// Ranged requests in flight at once.
    public var connections: Int
    /// All download buffers of one object together.
    public var memory: ByteCount
    /// AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_CA_BUNDLE and their like are read
    /// from it.
    public var environment: [String: String]
    public var retry: RetryPolicy

    public init(
        region: String? = nil, endpoint: String? = nil, isAnonymous: Bool = false, connections: Int = 8,
        memory: ByteCount = ByteCount(32 << 20), environment: [String: String] = Host.environment(),
        retry: RetryPolicy = RetryPolicy()
    ) {
        self.region = region
        self.endpoint = endpoint
        self.isAnonymous = isAnonymous
        self.connections = connections
        self.memory = memory
        self.environment = environment
        self.retry = retry
    }

    var s3Region: String? { region ?? set("AWS_REGION") ?? set("AWS_DEFAULT_REGION") }

    var s3Endpoint: String? {
        if let endpoint { return endpoint }
        if environment["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]?.lowercased() == "true" { return nil }
        return set("AWS_ENDPOINT_URL_S3") ?? set("AWS_ENDPOINT_URL")
    }

    private func set(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }
}

public enum Stores {
    /// The store that `location` names; `location.key` is then what its calls are given. Throws `StoreError`.
    public static func make(
        _ location: StoreLocation, options: StoreOptions, credentials: any CredentialProvider,
        transport: any HTTPTransport, log: Log
    ) throws -> any ObjectStore {
        if location.scheme == .web {
            return try WebStore(
                origin: location.root, query: location.query, options: options, transport: transport, log: log)
        }
        return try makeWritable(location, options: options, credentials: credentials, transport: transport, log: log)
    }

    /// The store that `location` names, to be written to. Throws `StoreError`; `badSetting` for a web server.
    public static func makeWritable(
        _ location: StoreLocation, options: StoreOptions, credentials: any CredentialProvider,
        transport: any HTTPTransport, log: Log
    ) throws -> any WritableStore {
        switch location.scheme {
        case .s3:
            return try S3Store(
                bucket: location.root, options: options, credentials: credentials, transport: transport, log: log)
        case .web:
            throw StoreError.badSetting(
                "\(location): a web server can only be read from; backups are put into s3://bucket/prefix/ or file:///folder/"
            )
        case .file: return FolderStore(folder: location.root)
        }
    }
}
