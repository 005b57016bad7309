/// How long a transfer is waited for and how often it is begun again. A pure value: failures in, pauses out.
public struct RetryPolicy: Sendable, Equatable {
    /// Tries in all while nothing gets through; one that brought a fair amount of bytes starts the count anew.
    public var attempts = 6
    public var firstPause = Duration.milliseconds(200)
    public var longestPause = Duration.seconds(20)
    /// Nothing at all for this long: the connection is given up and made anew.
    public var idle = Duration.seconds(20)
    /// Fewer bytes a second than this, over the window: the same. It ends a drip, not a slow line.
    public var leastRate: Int64 = 2048
    public var rateWindow = Duration.seconds(30)
    /// So many bytes in one try count as progress.
    public var progress: Int64 = 256 << 10

    public init() {}

    /// The pause after the `failures`th failure in a row (from 1), or nil when it was one too many. `hint` is the
    /// server's own Retry-After; `random` is in 0..<1.
    public func pause(afterFailure failures: Int, hint: Duration? = nil, random: Double) -> Duration? {
        guard failures < attempts else { return nil }
        let pause = Self.pause(afterFailure: failures, first: firstPause, longest: longestPause, random: random)
        guard let hint, hint > .zero else { return pause }
        return max(pause, min(hint, longestPause))
    }

    /// `first`, doubled after each further failure in a row (counted from 1), at most `longest`. Half of it is left to chance,
    /// so that a hundred fronts launched at once do not come back at once.
    public static func pause(
        afterFailure failures: Int, first: Duration, longest: Duration, random: Double
    ) -> Duration {
        let whole = min(first * (1 << min(max(failures - 1, 0), 20)), longest)
        return whole / 2 + whole * (random / 2)
    }

    /// The statuses with which a server says "later" (RFC 9110 sections 15.5 and 15.6, RFC 6585 section 4).
    public static func isLater(status: Int) -> Bool { [429, 500, 502, 503, 504].contains(status) }

    /// Retry-After in seconds (RFC 9110, section 10.2.3). Its other form, a date, needs a clock that agrees; it is left
    /// out.
    public static func hint(_ response: HTTPResponse) -> Duration? {
        guard let text = response.header("Retry-After"), let seconds = Int64(text), (0...86400).contains(seconds) else {
            return nil
        }
        return .seconds(seconds)
    }
}
