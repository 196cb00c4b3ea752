// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientException;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.Message;
import org.apache.rocketmq.client.apis.message.MessageBuilder;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.SendReceipt;
import org.apache.rocketmq.client.java.message.MessageViewImpl;

/**
 * RocketMQ's official gRPC client for tests: a producer and consumers of both kinds that know a
 * proxy and no broker, behind the same lines of JSON as RocketMQClient.java. rocketmq.sh grpc
 * starts it.
 *
 * <p>It can do less than the other: its delays are instants, it chooses no queue, and a topic and a
 * group must be there before it comes.
 */
public final class RocketMQGrpcClient {
  private static final PrintStream OUT = System.out;
  private static final int BATCH = 16;
  private static final Duration POLL = Duration.ofSeconds(20);
  private static final Duration INVISIBLE = Duration.ofSeconds(60);

  private final ClientServiceProvider provider = ClientServiceProvider.loadService();
  private final ClientConfiguration configuration;
  private final List<Object> consumers = new ArrayList<>(); // keeps them from being collected
  private Producer producer;

  public static void main(String[] args) throws Exception {
    System.setOut(System.err); // the answers alone go to OUT
    RocketMQGrpcClient client = new RocketMQGrpcClient(args[0]);
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

  private RocketMQGrpcClient(String proxy) {
    configuration = ClientConfiguration.newBuilder().setEndpoints(proxy).enableSsl(false)
        .setRequestTimeout(Duration.ofSeconds(10)).build();
  }

  private static void print(JSONObject line) {
    synchronized (OUT) {
      OUT.println(line);
      OUT.flush();
    }
  }

  private void run(JSONObject call, JSONObject answer) throws Exception {
    switch (call.getString("do")) {
      case "subscribe": subscribe(call); break;
      case "poll": poll(call); break;
      case "send": send(call, answer); break;
      case "recall":
        answer.put("recalled", producer().recallMessage(call.getString("topic"),
            call.getString("handle")).getMessageId().toString());
        break;
      default: throw new IllegalArgumentException("do what?");
    }
  }

  private Producer producer() throws ClientException {
    if (producer == null) {
      producer = provider.newProducerBuilder().setClientConfiguration(configuration).build();
    }
    return producer;
  }

  private static Map<String, FilterExpression> all(JSONObject call) {
    Map<String, FilterExpression> topics = new HashMap<>();
    for (String topic : call.getList("topics", String.class)) {
      topics.put(topic, FilterExpression.SUB_ALL);
    }
    return topics;
  }

  private void subscribe(JSONObject call) throws ClientException {
    consumers.add(provider.newPushConsumerBuilder().setClientConfiguration(configuration)
        .setConsumerGroup(call.getString("group")).setSubscriptionExpressions(all(call))
        .setMessageListener(m -> {
          print(JSONObject.of("got", got(m)));
          return ConsumeResult.SUCCESS;
        }).build());
  }

  private void poll(JSONObject call) throws ClientException {
    SimpleConsumer c = provider.newSimpleConsumerBuilder().setClientConfiguration(configuration)
        .setConsumerGroup(call.getString("group")).setSubscriptionExpressions(all(call))
        .setAwaitDuration(POLL).build();
    consumers.add(c);
    Thread t = new Thread(() -> {
      while (true) {
        try {
          for (MessageView m : c.receive(BATCH, INVISIBLE)) {
            print(JSONObject.of("got", got(m)));
            c.ack(m);
          }
        } catch (ClientException e) {
          System.err.println("poll: " + e); // the proxy is away, or the topic not known yet
          pause();
        }
      }
    });
    t.setDaemon(true);
    t.start();
  }

  private static void pause() {
    try {
      Thread.sleep(200);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** The queue and when the broker stored a message are not told to a consumer. */
  private static JSONObject got(MessageView v) {
    MessageViewImpl m = (MessageViewImpl) v;
    ByteBuffer view = m.getBody();
    byte[] body = new byte[view.remaining()];
    view.get(body);
    JSONObject o = new JSONObject();
    o.put("topic", m.getTopic());
    o.put("broker", m.getMessageQueue().getBroker().getName());
    o.put("queue", -1);
    o.put("offset", m.getOffset());
    o.put("id", m.getMessageId().toString());
    o.put("tags", m.getTag().orElse(""));
    o.put("keys", String.join(" ", m.getKeys()));
    o.put("born", m.getBornTimestamp());
    o.put("at", System.currentTimeMillis());
    o.put("body", Base64.getEncoder().encodeToString(body));
    o.put("properties", m.getProperties());
    return o;
  }

  private Message message(JSONObject o) {
    MessageBuilder b = provider.newMessageBuilder().setTopic(o.getString("topic"))
        .setBody(Base64.getDecoder().decode(o.getString("body")))
        .setDeliveryTimestamp(o.getLongValue("due"));
    if (o.getString("tags") != null) {
      b.setTag(o.getString("tags"));
    }
    if (o.getString("keys") != null) {
      b.setKeys(o.getString("keys").split(" "));
    }
    JSONObject properties = o.getJSONObject("properties");
    if (properties != null) {
      properties.forEach((k, v) -> b.addProperty(k, (String) v));
    }
    return b.build();
  }

  private void send(JSONObject call, JSONObject answer) throws ClientException {
    JSONArray sent = new JSONArray();
    for (JSONObject o : call.getList("messages", JSONObject.class)) {
      Message m = message(o);
      long at = System.currentTimeMillis();
      SendReceipt r = producer().send(m);
      JSONObject s = JSONObject.of("id", r.getMessageId().toString(), "at", at);
      s.put("handle", r.getRecallHandle());
      s.put("status", "SEND_OK"); // what else there is, is an exception here
      s.put("queue", -1);
      sent.add(s);
    }
    answer.put("sent", sent);
  }
}
