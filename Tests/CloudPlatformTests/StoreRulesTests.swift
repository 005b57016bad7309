import HostSystem
import Testing

@testable import CloudPlatform

@Suite struct S3EndpointTests {
    @Test(
        "buckets answer where the AWS SDKs look for them",
        arguments: [
            ("acme", "us-east-1", nil, [:], "https://acme.s3.us-east-1.amazonaws.com/k"),
            ("acme", "eu-west-3", nil, [:], "https://acme.s3.eu-west-3.amazonaws.com/k"),
            ("acme.backups", "eu-west-3", nil, [:], "https://s3.eu-west-3.amazonaws.com/acme.backups/k"),
            ("Acme", "us-east-1", nil, [:], "https://s3.us-east-1.amazonaws.com/Acme/k"),
            ("acme_b", "us-east-1", nil, [:], "https://s3.us-east-1.amazonaws.com/acme_b/k"),
            ("acme", "cn-north-1", nil, [:], "https://acme.s3.cn-north-1.amazonaws.com.cn/k"),
            ("acme", "us-gov-west-1", nil, [:], "https://acme.s3.us-gov-west-1.amazonaws.com/k"),
            (
                "acme", "eu-west-1", nil, ["AWS_USE_DUALSTACK_ENDPOINT": "true"],
                "https://acme.s3.dualstack.eu-west-1.amazonaws.com/k"
            ),
            (
                "acme", "us-east-1", nil, ["AWS_USE_FIPS_ENDPOINT": "true"],
                "https://acme.s3-fips.us-east-1.amazonaws.com/k"
            ),
            (
                "acme", "us-east-1", nil, ["AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"],
                "https://acme.s3-fips.dualstack.us-east-1.amazonaws.com/k"
            ),
            ("acme", "eu-west-1", "http://10.0.0.2:9000", [:], "http://10.0.0.2:9000/acme/k"),
            ("acme", "eu-west-1", "https://s3.acme.internal/base/", [:], "https://s3.acme.internal/base/acme/k"),
        ] as [(String, String, String?, [String: String], String)])
    func hosts(bucket: String, region: String, custom: String?, environment: [String: String], expected: String) throws
    {
        let endpoint = try S3Endpoint(bucket: bucket, region: region, custom: custom, environment: environment)
        #expect(endpoint.url(key: "k") == expected)
    }

    @Test(
        "what is no region or endpoint is refused",
        arguments: [
            ("evil.example/", nil), ("a", nil), ("-eu", nil), ("EU", nil), ("eu-west-1", "ftp://host"),
            ("eu-west-1", "http://u:p@host"),
            ("eu-west-1", "http://host/?q"),
        ] as [(String, String?)])
    func refused(region: String, custom: String?) {
        #expect(throws: StoreError.self) {
            try S3Endpoint(bucket: "acme", region: region, custom: custom, environment: [:])
        }
    }

    @Test("every byte of a key is encoded once")
    func keys() throws {
        let endpoint = try S3Endpoint(bucket: "acme", region: "eu-west-1", custom: "http://h", environment: [:])
        #expect(endpoint.url(key: "a b+c%/é/../~") == "http://h/acme/a%20b%2Bc%25/%C3%A9/../~")
        #expect(endpoint.url(key: "", query: [("prefix", "a/b&c"), ("x", "")]) == "http://h/acme/?prefix=a%2Fb%26c&x=")
    }

    @Test("settings win over the environment, and nothing is guessed")
    func options() {
        #expect(StoreOptions(environment: [:]).s3Region == nil)
        #expect(StoreOptions(environment: ["AWS_DEFAULT_REGION": "b", "AWS_REGION": "a"]).s3Region == "a")
        #expect(StoreOptions(region: "c", environment: ["AWS_REGION": "a"]).s3Region == "c")
        let environment = ["AWS_ENDPOINT_URL": "u", "AWS_ENDPOINT_URL_S3": "s"]
        #expect(StoreOptions(environment: environment).s3Endpoint == "s")
        #expect(StoreOptions(endpoint: "e", environment: environment).s3Endpoint == "e")
        let ignoring = environment.merging(["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"]) { $1 }
        #expect(StoreOptions(environment: ignoring).s3Endpoint == nil)
    }
}

@Suite struct StoreLocationTests {
    @Test(
        "what people write",
        arguments: [
            ("s3://acme-backups/boutique/", StoreLocation.Scheme.s3, "acme-backups", "boutique/", true),
            ("s3://acme-backups", .s3, "acme-backups", "", true),
            ("s3://acme-backups/a b%2F", .s3, "acme-backups", "a b%2F", false),
            ("https://Host.example:443/a/b%20c.tar.gz", .web, "https://host.example", "a/b%20c.tar.gz", false),
            ("http://[::1]:8080/x", .web, "http://[::1]:8080", "x", false),
            ("https://h/dir/", .web, "https://h", "dir/", true),
            ("file:///var/backups/", .file, "/var/backups/", "", true),
            ("file:///var/b%20c/x.tar", .file, "/var/b c/", "x.tar", false),
            ("file://localhost/x", .file, "/", "x", false),
        ])
    func good(url: String, scheme: StoreLocation.Scheme, root: String, key: String, isPrefix: Bool) throws {
        let location = try StoreLocation(parsing: url)
        #expect(location.scheme == scheme)
        #expect(location.root == root)
        #expect(location.key == key)
        #expect(location.isPrefix == isPrefix)
    }

    @Test(
        "what is none is refused, without showing a password",
        arguments: [
            "", "boutique", "/var/backups", "ftp://h/x", "s3://", "s3:///key", "s3://a/key", "s3://bu cket/key",
            "s3://buc:ket/k",
            "https://", "https:///x", "https://user:MADE-UP-SECRET@host/x", "https://h:99999/x", "file://other/x",
            "file://relative",
        ])
    func bad(url: String) throws {
        let problem = try #require(throws: StoreLocation.Problem.self) { try StoreLocation(parsing: url) }
        #expect(!problem.description.contains("MADE-UP-SECRET"))
    }

    @Test("the query of a signed address is kept and never shown")
    func query() throws {
        let location = try StoreLocation(parsing: "https://h/x?sig=MADE-UP-SECRET#f")
        #expect(location.query == Secret("sig=MADE-UP-SECRET"))
        #expect(location.description == "https://h/x")
        #expect(!String(reflecting: location).contains("MADE-UP-SECRET"))
    }
}

@Suite struct ServerTimeTests {
    @Test(
        "every form of a time is the same second",
        arguments: [
            (0, "19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            (951_782_400, "20000229T000000Z", "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00.000Z"),
            (784_111_777, "19941106T084937Z", "Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37.123Z"),
            (4_107_542_399, "21000228T235959Z", "Sun, 28 Feb 2100 23:59:59 GMT", "2100-02-28T23:59:59Z"),
        ] as [(Int64, String, String, String)])
    func forms(seconds: Int64, stamp: String, http: String, iso: String) {
        #expect(UTCStamp(secondsSince1970: seconds).basic == stamp)
        #expect(ServerTime.http(http) == seconds)
        #expect(ServerTime.iso(iso) == seconds)
    }

    @Test(
        "what is no time is none",
        arguments: [
            "", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "1994-13-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 CET",
        ])
    func none(text: String) {
        #expect(ServerTime.http(text) == nil)
        #expect(ServerTime.iso(text) == nil)
    }
}
