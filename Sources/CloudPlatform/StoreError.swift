public import HostSystem

/// Why a store does not give what was asked. Each case keeps the object (`s3://bucket/key`) and what the server called
/// it.
public enum StoreError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The credentials are good, but may not do `action` (`s3:GetObject`); `credentials` says whose they are.
    case accessDenied(action: String, object: String, code: String, requestID: String?, credentials: String)
    /// The key, the token or the signature itself was refused, also after fresh ones were asked for.
    case credentialsRefused(object: String, code: String, requestID: String?, credentials: String)
    case noSuchBucket(bucket: String, requestID: String?)
    /// No object of that name.
    case absent(object: String)
    /// There was one when it was chosen, and it is gone.
    case removed(object: String)
    /// Other bytes stand under that name than those that were chosen.
    case replaced(object: String)
    case cannotList(location: String)
    case tooLarge(object: String, limit: Int)
    /// No region is set, and none is guessed.
    case noRegion(bucket: String)
    /// The bucket lies elsewhere and the request was already corrected once, or it lies in another partition.
    case wrongRegion(bucket: String, asked: String, told: String)
    /// Sent elsewhere by a server; credentials are never sent to another host.
    case redirected(object: String, to: String)
    case tooManyRedirects(object: String)
    /// The clock is wrong by so many seconds, and signing with the server's time did not help.
    case clockSkew(object: String, seconds: Int64)
    /// "Later", as often as it was asked.
    case unavailable(object: String, status: Int, code: String, requestID: String?)
    case unreachable(object: String, HTTPFailure)
    /// What came back is no answer of such a store: a captive portal's page, a wrong document.
    case unexpectedAnswer(object: String, reason: String)
    /// The store does not take what it was sent, and says why.
    case cannotUpload(object: String, reason: String)
    /// The store has forgotten the upload, or another writer was in its way: it can only be begun again.
    case uploadLost(object: String, reason: String)
    /// The answer that would tell whether the object was stored did not come, and looking for it did not help.
    case outcomeUnknown(object: String, reason: String)
    /// The listing repeats itself.
    case endlessListing(location: String)
    /// A setting that no store can be made of.
    case badSetting(String)

    /// The person must be given a right: exit status 77.
    public var isPermission: Bool {
        switch self {
        case .accessDenied, .credentialsRefused: true
        default: false
        }
    }

    /// The service cannot be reached, or gives no usable answer now: exit status 69.
    public var isUnreachable: Bool {
        switch self {
        case .unavailable, .unreachable, .unexpectedAnswer, .tooManyRedirects, .redirected, .clockSkew, .uploadLost,
            .outcomeUnknown:
            true
        default: false
        }
    }

    /// The settings name something that is not there: exit status 78.
    public var isSettings: Bool {
        switch self {
        case .noSuchBucket, .noRegion, .wrongRegion, .cannotList, .badSetting: true
        default: false
        }
    }

    public var description: String {
        switch self {
        case .accessDenied(let action, let object, let code, let request, let credentials):
            "\(object): access denied (\(Self.told(code, request))); \(credentials) do not allow \(action)"
                + (action.hasPrefix("s3:GetObject") ? ", or nothing has that name and s3:ListBucket is missing" : "")
        case .credentialsRefused(let object, let code, let request, let credentials):
            "\(object): \(credentials) were refused (\(Self.told(code, request)))"
        case .noSuchBucket(let bucket, let request):
            "there is no bucket \(bucket) (\(Self.told("NoSuchBucket", request)))"
        case .absent(let object): "\(object): there is no such object"
        case .removed(let object): "\(object): removed since it was chosen"
        case .replaced(let object): "\(object): replaced since it was chosen"
        case .cannotList(let location): "\(location): a web server cannot list; name one file"
        case .tooLarge(let object, let limit): "\(object): larger than \(ByteCount(limit))"
        case .noRegion(let bucket): "no region is set for the bucket \(bucket): set backup.region or AWS_REGION"
        case .wrongRegion(let bucket, let asked, let told):
            "the bucket \(bucket) is not in \(asked); the server names \(told)"
        case .redirected(let object, let place): "\(object): redirected to \(place), which is not followed"
        case .tooManyRedirects(let object): "\(object): redirected in a circle or too often"
        case .clockSkew(let object, let seconds):
            "\(object): the clock here is wrong by \(Duration.seconds(abs(seconds)).spoken), so signatures are refused"
        case .unavailable(let object, let status, let code, let request):
            "\(object): the service is not available (status \(status), \(Self.told(code, request)))"
        case .unreachable(let object, let failure): "\(object): \(failure)"
        case .unexpectedAnswer(let object, let reason): "\(object): not the answer of such a store: \(reason)"
        case .cannotUpload(let object, let reason): "\(object): the store does not take it: \(reason)"
        case .uploadLost(let object, let reason): "\(object): the upload must be begun again: \(reason)"
        case .outcomeUnknown(let object, let reason): "\(object): it is not known whether it was stored: \(reason)"
        case .endlessListing(let location): "\(location): the listing has no end"
        case .badSetting(let reason): reason
        }
    }

    private static func told(_ code: String, _ request: String?) -> String {
        code + (request.map { ", request \($0)" } ?? "")
    }
}
