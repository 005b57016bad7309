internal import HostSystem

/// Where a bucket answers, by the endpoint rules of the AWS SDKs for plain buckets.
struct S3Endpoint: Sendable, Equatable {
    /// Scheme and host, without a trailing slash.
    let origin: String
    /// In front of the key: empty in virtual-host style, `/bucket` in path style.
    let basePath: String

    /// `custom` is the URL of an S3-compatible server: always path style, since its name has no wildcard entries. `region` is
    /// then only signed with. Environment: AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT.
    init(bucket: String, region: String, custom: String?, environment: [String: String]) throws(StoreError) {
        if let custom {
            guard let address = WebAddress(custom), address.query == nil else {
                throw .badSetting("the endpoint \(HTTPRequest.withoutQuery(custom)) is no http or https URL")
            }
            var path = address.path
            while path.hasSuffix("/") { path.removeLast() }
            origin = address.origin
            basePath = path + "/" + WebAddress.encoded(bucket)
            return
        }
        guard Self.isRegion(region) else { throw .badSetting("\(Printable.text(region, limit: 40)) is no region") }
        let usesFIPS = Self.isOn(environment["AWS_USE_FIPS_ENDPOINT"])
        let usesDualStack = Self.isOn(environment["AWS_USE_DUALSTACK_ENDPOINT"])
        if usesFIPS && region.hasPrefix("cn-") { throw .badSetting("the regions in China have no FIPS endpoints for S3") }
        let host =
            (usesFIPS ? "s3-fips." : "s3.") + (usesDualStack ? "dualstack." : "") + region + "." + Self.suffix(of: region)
        if Self.isOneLabel(bucket) {
            origin = "https://\(bucket).\(host)"
            basePath = ""
        } else {
            // The wildcard certificate covers one label: a name with dots in it would fail every TLS check.
            origin = "https://" + host
            basePath = "/" + WebAddress.encoded(bucket)
        }
    }

    func url(key: String, query: [(String, String)] = []) -> String {
        let list = query.map { WebAddress.encoded($0.0) + "=" + WebAddress.encoded($0.1) }.joined(separator: "&")
        return origin + basePath + "/" + WebAddress.encoded(key, keepingSlash: true) + (list.isEmpty ? "" : "?" + list)
    }

    /// The domain of the region's partition (botocore, partitions.json).
    static func suffix(of region: String) -> String {
        let partitions = [
            ("cn-", "amazonaws.com.cn"), ("eusc-", "amazonaws.eu"), ("us-isob-", "sc2s.sgov.gov"),
            ("us-isof-", "csp.hci.ic.gov"), ("us-iso-", "c2s.ic.gov"), ("eu-isoe-", "cloud.adc-e.uk"),
        ]
        return partitions.first { region.hasPrefix($0.0) }?.1 ?? "amazonaws.com"
    }

    /// What may stand in a host name and in a signature's scope; a region can come from a server's answer.
    static func isRegion(_ text: String) -> Bool { (2...40).contains(text.utf8.count) && isLabel(text) }

    private static func isOneLabel(_ bucket: String) -> Bool {
        (3...63).contains(bucket.utf8.count) && isLabel(bucket)
    }

    private static func isLabel(_ text: String) -> Bool {
        text.first != "-" && text.last != "-"
            && text.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7a) || ($0 >= 0x30 && $0 <= 0x39) || $0 == 0x2d }
    }

    private static func isOn(_ text: String?) -> Bool { text?.lowercased() == "true" }
}
