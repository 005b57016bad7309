import CloudPlatform
import HostSystem
import Testing

/// The examples that AWS publishes with their signatures: "Authenticating Requests: Using the Authorization Header" in
/// the S3 API Reference (1 to 4), the Signature Version 4 test suite (the rest).
@Suite struct SigV4Tests {
    struct Example: Sendable, CustomTestStringConvertible {
        let name: String
        let request: HTTPRequest
        let service: String
        let payload: String?
        let signed: String
        let signature: String
        var testDescription: String { name }
        var isS3: Bool { service == "s3" }
    }

    static let examples: [Example] = [
        Example(
            name: "GET Object",
            request: HTTPRequest(
                "GET", "https://examplebucket.s3.amazonaws.com/test.txt", headers: [("Range", "bytes=0-9")]),
            service: "s3", payload: nil, signed: "host;range;x-amz-content-sha256;x-amz-date",
            signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        Example(
            name: "PUT Object",
            request: HTTPRequest(
                "PUT", "https://examplebucket.s3.amazonaws.com/test%24file.text",
                headers: [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
                body: Array("Welcome to Amazon S3.".utf8)),
            service: "s3", payload: nil, signed: "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        Example(
            name: "GET Bucket Lifecycle",
            request: HTTPRequest("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle"),
            service: "s3", payload: nil, signed: "host;x-amz-content-sha256;x-amz-date",
            signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        Example(
            name: "List Objects",
            request: HTTPRequest("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J"),
            service: "s3", payload: nil, signed: "host;x-amz-content-sha256;x-amz-date",
            signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        Example(
            name: "get-vanilla", request: HTTPRequest("GET", "https://example.amazonaws.com/"), service: "service",
            payload: nil,
            signed: "host;x-amz-date", signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        Example(
            name: "get-vanilla-query-order-key-case",
            request: HTTPRequest("GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1"),
            service: "service",
            payload: nil, signed: "host;x-amz-date",
            signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        Example(
            name: "get-relative", request: HTTPRequest("GET", "https://example.amazonaws.com/example/.."),
            service: "service",
            payload: nil, signed: "host;x-amz-date",
            signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        Example(
            name: "get-slashes", request: HTTPRequest("GET", "https://example.amazonaws.com//"), service: "service",
            payload: nil, signed: "host;x-amz-date",
            signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        Example(
            name: "get-header-value-trim",
            request: HTTPRequest(
                "GET", "https://example.amazonaws.com/",
                headers: [("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")]),
            service: "service", payload: nil, signed: "host;my-header1;my-header2;x-amz-date",
            signature: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
        Example(
            name: "post-vanilla", request: HTTPRequest("POST", "https://example.amazonaws.com/"), service: "service",
            payload: nil, signed: "host;x-amz-date",
            signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ]

    @Test("the published examples", arguments: examples)
    func published(example: Example) throws {
        let signer = SigV4(
            service: example.service, region: "us-east-1", dialect: example.isS3 ? .s3 : .generic)
        let credentials =
            example.isS3
            ? Credentials(
                accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
                origin: "test")
            : Credentials(
                accessKey: "AKIDEXAMPLE", secretKey: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), origin: "test")
        // 2013-05-24T00:00:00Z and 2015-08-30T12:36:00Z.
        let signed = signer.sign(
            example.request, with: credentials, at: example.isS3 ? 1_369_353_600 : 1_440_938_160,
            payload: example.payload)
        let value = try #require(signed.headers.first { $0.name == "Authorization" }?.value)
        #expect(value.contains("SignedHeaders=\(example.signed), "))
        #expect(value.hasSuffix("Signature=" + example.signature))
    }

    @Test("signing again replaces; a token is signed; the port belongs to the host; S3 paths stay as they are")
    func details() throws {
        let credentials = Credentials(
            accessKey: "AK", secretKey: Secret("MADE-UP-SECRET"), sessionToken: Secret("MADE-UP-SECRET-token"),
            origin: "test")
        let signer = SigV4(service: "s3", region: "eu-west-1", dialect: .s3)
        let once = signer.sign(HTTPRequest("GET", "http://h:9000/a/../b//c"), with: credentials, at: 1_440_938_160)
        let twice = signer.sign(once, with: credentials, at: 1_440_938_160)
        #expect(once.headers.map(\.name) == twice.headers.map(\.name))
        #expect(once.headers.last?.value == twice.headers.last?.value)
        #expect(once.headers.contains { $0.name == "X-Amz-Security-Token" && $0.value == "MADE-UP-SECRET-token" })
        #expect(once.headers.last?.value.contains("/20150830/eu-west-1/s3/aws4_request") == true)
        let other = signer.sign(HTTPRequest("GET", "http://h/b/c"), with: credentials, at: 1_440_938_160)
        #expect(once.headers.last?.value != other.headers.last?.value)
        #expect(!"\(once)".contains("MADE-UP-SECRET"))
    }
}
