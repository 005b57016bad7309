internal import HostSystem
internal import Synchronization

/// The clock, the sleep and the dice of whoever asks the metadata service, so that a test can give others; and the limits of
/// one request.
struct MetadataPacing: Sendable {
    /// Monotonic.
    var now: @Sendable () -> Duration
    var sleep: @Sendable (Duration, StopFlag) throws -> Void
    /// From 0 to 1.
    var jitter: @Sendable () -> Double
    /// The service is one hop away: an answer takes a few milliseconds. AWS's own SDKs wait one second for the connection.
    var connectTimeout = Duration.seconds(1)
    /// Well above `connectTimeout`, so that the time a request took tells which of the two ran out.
    var answerTimeout = Duration.seconds(3)

    static let real = MetadataPacing(
        now: { started.duration(to: .now) },
        sleep: { duration, stop in try stop.sleep(duration) },
        jitter: { Double.random(in: 0...1) })
    private static let started = ContinuousClock.now

    /// The wait before the attempt after `attempts` failed ones: from half to the whole of 200 ms, doubled each time, up to
    /// `ceiling`. The service limits requests per instance, so everything on it that retries must not do so in step.
    func delay(after attempts: Int, ceiling: Duration = .seconds(5)) -> Duration {
        RetryPolicy.pause(afterFailure: attempts, first: .milliseconds(200), longest: ceiling, random: jitter())
    }

    /// Whether a request that had no answer got as far as a connection: it took longer than a connection may.
    func hadConnection(_ elapsed: Duration) -> Bool { elapsed > (connectTimeout + answerTimeout) / 2 }
}
