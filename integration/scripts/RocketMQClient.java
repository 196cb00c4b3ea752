// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import org.apache.rocketmq.acl.common.AclClientRPCHook;
import org.apache.rocketmq.acl.common.SessionCredentials;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * RocketMQ's official client for tests: a producer, consumers and the admin tool behind lines of
 * JSON. rocketmq.sh client starts it; package integration/rocketmq holds the other end.
 *
 * <pre>
 *   in   {"id":1, "do":"send", ...}        out  {"id":1, ...}            in the order of the calls
 *                                               {"id":1, "error":"..."}
 *                                               {"got":{...}}            whenever a message comes
 * </pre>
 *
 * It ends with its standard input.
 */
public final class RocketMQClient {
  private static final int IN_FLIGHT = 256;
  private static final PrintStream OUT = System.out;

  private final String nameServer;
  private final RPCHook access; // null: there is no access control
  private final DefaultMQProducer producer;
  private final DefaultMQAdminExt admin;
  private final List<DefaultMQPushConsumer> consumers = new ArrayList<>();
  private final Tally tally = new Tally();

  public static void main(String[] args) throws Exception {
    System.setOut(System.err); // the answers alone go to OUT
    RocketMQClient client = new RocketMQClient(args);
    BufferedReader in =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    print(JSONObject.of("id", 0));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      JSONObject call = JSON.parseObject(line);
      JSONObject answer = new JSONObject();
      answer.put("id", call.getIntValue("id"));
      try {
        client.run(call, answer);
      } catch (Exception e) {
        answer.put("error", e.toString());
      }
      print(answer);
    }
    Runtime.getRuntime().halt(0); // nobody waits for an orderly end
  }

  /** The name server's address and, where access is controlled, a name and its password. */
  private RocketMQClient(String[] args) throws Exception {
    nameServer = args[0];
    access = args.length < 3 ? null
        : new AclClientRPCHook(new SessionCredentials(args[1], args[2]));
    producer = new DefaultMQProducer("producer", access);
    producer.setNamesrvAddr(nameServer);
    producer.setInstanceName("producer");
    producer.setSendMsgTimeout(60_000);
    producer.start();
    admin = new DefaultMQAdminExt(access, 30_000);
    admin.setNamesrvAddr(nameServer);
    admin.setInstanceName("admin");
    admin.start();
  }

  private static void print(JSONObject line) {
    synchronized (OUT) {
      OUT.println(line);
      OUT.flush();
    }
  }

  private void run(JSONObject call, JSONObject answer) throws Exception {
    switch (call.getString("do")) {
      case "topic": topic(call); break;
      case "group": group(call); break;
      case "user":
        admin.createUser(call.getString("broker"), call.getString("user"),
            call.getString("password"), "Normal");
        break;
      case "grant":
        admin.createAcl(call.getString("broker"), "User:" + call.getString("user"),
            call.getList("resources", String.class), call.getList("actions", String.class),
            Collections.emptyList(), "Allow");
        break;
      case "subscribe": subscribe(call); break;
      case "send": send(call, answer); break;
      case "fill": fill(call); break;
      case "load": load(call, answer); break;
      case "tally": tally.report(answer, call.getBooleanValue("reset")); break;
      case "recall":
        answer.put("recalled",
            producer.recallMessage(call.getString("topic"), call.getString("handle")));
        break;
      case "expire": admin.deleteExpiredCommitLogByAddr(call.getString("broker")); break;
      case "info":
        answer.put("info", admin.fetchBrokerRuntimeStats(call.getString("broker")).getTable());
        break;
      default: throw new IllegalArgumentException("do what?");
    }
  }

  /** A consumer that begins before the name server knows its topic asks again in half a minute. */
  private void topic(JSONObject call) throws Exception {
    int queues = call.getIntValue("queues");
    String topic = call.getString("topic");
    String broker = call.getString("broker");
    TopicConfig config = new TopicConfig(topic, queues, queues, 6);
    if (call.getString("type") != null) { // what a proxy takes for it
      config.setAttributes(Collections.singletonMap("+message.type", call.getString("type")));
    }
    admin.createAndUpdateTopicConfig(broker, config);
    for (int tries = 0; tries < 200; tries++) {
      try {
        if (admin.examineTopicRouteInfo(topic).getBrokerDatas().stream()
            .anyMatch(b -> b.getBrokerAddrs().containsValue(broker))) {
          return;
        }
      } catch (MQClientException e) {
        // it is not known yet
      }
      Thread.sleep(100);
    }
    throw new IllegalStateException("the name server does not hear of topic " + topic);
  }

  /** Over a proxy a group must be there before its consumers come. */
  private void group(JSONObject call) throws Exception {
    SubscriptionGroupConfig config = new SubscriptionGroupConfig();
    config.setGroupName(call.getString("group"));
    admin.createAndUpdateSubscriptionGroupConfig(call.getString("broker"), config);
  }

  private void subscribe(JSONObject call) throws Exception {
    boolean count = call.getBooleanValue("tally");
    DefaultMQPushConsumer c = new DefaultMQPushConsumer(call.getString("group"), access);
    c.setNamesrvAddr(nameServer);
    c.setInstanceName("consumer-" + consumers.size());
    c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
    c.setConsumeMessageBatchMaxSize(32);
    for (String topic : call.getList("topics", String.class)) {
      c.subscribe(topic, "*");
    }
    c.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
      long now = System.currentTimeMillis();
      for (MessageExt m : messages) {
        if (count) {
          tally.add(m, now);
        } else {
          print(JSONObject.of("got", got(m, now)));
        }
      }
      return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    });
    c.start();
    consumers.add(c);
  }

  private static JSONObject got(MessageExt m, long now) {
    JSONObject o = new JSONObject();
    o.put("topic", m.getTopic());
    o.put("broker", m.getBrokerName());
    o.put("queue", m.getQueueId());
    o.put("offset", m.getQueueOffset());
    o.put("id", m.getMsgId());
    o.put("tags", m.getTags());
    o.put("keys", m.getKeys());
    o.put("flag", m.getFlag());
    o.put("born", m.getBornTimestamp());
    o.put("stored", m.getStoreTimestamp());
    o.put("at", now);
    o.put("body", Base64.getEncoder().encodeToString(m.getBody()));
    o.put("properties", m.getProperties());
    return o;
  }

  private static Message message(JSONObject o) {
    Message m = new Message(o.getString("topic"), o.getString("tags"), o.getString("keys"),
        o.getIntValue("flag"), Base64.getDecoder().decode(o.getString("body")), true);
    JSONObject properties = o.getJSONObject("properties");
    if (properties != null) {
      properties.forEach((k, v) -> m.putUserProperty(k, (String) v));
    }
    if (o.getIntValue("level") > 0) {
      m.setDelayTimeLevel(o.getIntValue("level"));
    }
    if (o.getLongValue("due") > 0) {
      m.setDeliverTimeMs(o.getLongValue("due"));
    }
    if (o.getLongValue("delay") > 0) {
      m.setDelayTimeMs(o.getLongValue("delay"));
    }
    return m;
  }

  private void send(JSONObject call, JSONObject answer) throws Exception {
    Map<String, List<MessageQueue>> queues = new HashMap<>();
    JSONArray sent = new JSONArray();
    for (JSONObject o : call.getList("messages", JSONObject.class)) {
      Message m = message(o);
      if (!queues.containsKey(m.getTopic())) {
        List<MessageQueue> all = producer.fetchPublishMessageQueues(m.getTopic());
        all.sort(null);
        queues.put(m.getTopic(), all);
      }
      List<MessageQueue> all = queues.get(m.getTopic());
      long at = System.currentTimeMillis();
      SendResult r = send(m, all.get(o.getIntValue("queue") % all.size()));
      JSONObject s = JSONObject.of("id", r.getMsgId(), "at", at, "handle", r.getRecallHandle());
      s.put("status", r.getSendStatus().name());
      s.put("broker", r.getMessageQueue().getBrokerName());
      s.put("queue", r.getMessageQueue().getQueueId());
      sent.add(s);
    }
    answer.put("sent", sent);
  }

  /** A busy broker refuses for a moment, before it stores anything. */
  private SendResult send(Message m, MessageQueue queue) throws Exception {
    for (int tries = 0; ; tries++) {
      try {
        return queue == null ? producer.send(m) : producer.send(m, queue);
      } catch (MQBrokerException e) {
        if (e.getResponseCode() != ResponseCode.SYSTEM_BUSY || tries >= 100) {
          throw e;
        }
        Thread.sleep(50);
      }
    }
  }

  /** Sends ordinary messages of no interest until so many bytes went out. */
  private void fill(JSONObject call) throws Exception {
    byte[] body = new byte[16 << 10];
    new Random(8).nextBytes(body); // the client compresses what is large
    for (long left = call.getLongValue("bytes"); left > 0; left -= body.length) {
      send(new Message(call.getString("topic"), body), null);
    }
  }

  /**
   * Sends many at once: timers, messages of a delay level, or requests to Cicada for a target. Each
   * carries its due, if it has one, for the tally; dues are spread evenly.
   */
  private void load(JSONObject call, JSONObject answer) throws Exception {
    int count = call.getIntValue("count");
    int level = call.getIntValue("level");
    String target = call.getString("target");
    byte[] body = new byte[call.getIntValue("size")];
    Semaphore window = new Semaphore(IN_FLIGHT);
    AtomicInteger failed = new AtomicInteger();
    long began = System.nanoTime();
    for (int i = 0; i < count; i++) {
      Message m = new Message(call.getString("topic"), body);
      m.putUserProperty("n", call.getString("name") + i);
      long due = call.getLongValue("due");
      if (due > 0) {
        due += call.getLongValue("spread") * i / count;
        m.putUserProperty("due", Long.toString(due));
      }
      if (level > 0) {
        m.setDelayTimeLevel(level);
      } else if (target != null && !target.isEmpty()) {
        m.putUserProperty("cicada-target", target);
        m.putUserProperty("cicada-deliver-at", Long.toString(due));
      } else if (due > 0) {
        m.setDeliverTimeMs(due);
      }
      window.acquire();
      sendOne(m, window, failed, 0);
    }
    window.acquire(IN_FLIGHT);
    answer.put("seconds", (System.nanoTime() - began) / 1e9);
    answer.put("failed", failed.get());
  }

  /** A busy broker refuses for a moment; the same message is sent again a few times. */
  private void sendOne(Message m, Semaphore window, AtomicInteger failed, int tries) {
    try {
      producer.send(m, new SendCallback() {
        @Override public void onSuccess(SendResult r) {
          window.release();
        }

        @Override public void onException(Throwable e) {
          String text = String.valueOf(e.getMessage());
          if (tries < 100 && text.contains("busy")) {
            try {
              Thread.sleep(20);
            } catch (InterruptedException interrupted) {
              Thread.currentThread().interrupt();
            }
            sendOne(m, window, failed, tries + 1);
            return;
          }
          failed.incrementAndGet();
          window.release();
        }
      });
    } catch (Exception e) {
      failed.incrementAndGet();
      window.release();
    }
  }

  /** Counts what arrived since its last report, and how late. */
  private static final class Tally {
    private final Map<String, Integer> seen = new HashMap<>();
    private long[] late = new long[1 << 10];
    private int n;
    private int twice;
    private int early;

    synchronized void add(MessageExt m, long now) {
      if (seen.merge(m.getUserProperty("n"), 1, Integer::sum) > 1) {
        twice++;
        return;
      }
      String due = m.getUserProperty("due");
      if (due == null) {
        return;
      }
      if (n == late.length) {
        late = Arrays.copyOf(late, 2 * n);
      }
      late[n++] = now - Long.parseLong(due);
      if (late[n - 1] < 0 || m.getStoreTimestamp() < Long.parseLong(due)) {
        early++;
      }
    }

    synchronized void report(JSONObject answer, boolean reset) {
      long[] sorted = Arrays.copyOf(late, n);
      Arrays.sort(sorted);
      answer.put("arrived", seen.size());
      answer.put("twice", twice);
      answer.put("early", early);
      answer.put("p50", n == 0 ? 0 : sorted[n / 2]);
      answer.put("p99", n == 0 ? 0 : sorted[(int) Math.min(n - 1L, n * 99L / 100)]);
      answer.put("max", n == 0 ? 0 : sorted[n - 1]);
      if (reset) {
        seen.clear();
        n = 0;
        twice = 0;
        early = 0;
      }
    }
  }
}
